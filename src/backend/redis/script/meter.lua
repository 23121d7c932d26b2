-- Token buckets, leaky buckets and the bucket of leases: see `Meter`. The state is the time of the
-- last use, the parts in use then, and the parts in a unit.
local function meter(state, job, from)
  local op, units, count, at, mark, turn, tick, drain, unit, capacity, most, queues =
    unpack_('<dddddddddddd', job, from)
  op, count = as or op, as_count or count
  local full = capacity * unit
  local current = floor(now / tick)
  local written, used, its_unit = current, 0, unit
  local before = state
  if state then
    must(#state == 24)
    written, used, its_unit = unpack_('<ddd', state)
    must(whole(written) and whole(used) and whole(its_unit) and its_unit > 0)
    written = floor(written / tick)
    if used > 0 and its_unit ~= unit then
      -- In other parts, rounded up.
      local whole = floor(used / its_unit)
      if whole > MOST / unit then
        used = MOST
      else
        local quotient, rest = fraction(used - whole * its_unit, unit, its_unit)
        used = min(MOST, whole * unit + quotient + (rest > 0 and 1 or 0))
      end
    end
  else
    before = pack('<ddd', now, 0, unit)
  end
  local mine = used

  -- Standing: what has drained since, or a clock that has gone back.
  local standing = current
  if current >= written then
    local drained = (current - written) * drain
    used = drained >= used and 0 or used - drained
  elseif written - current <= ceil(used / drain) then
    standing = written
  end
  local instant, parts, result = standing, nil, 0

  if op == FILL then op, count = SETTLE, capacity end
  if op == SETTLE then
    local back = min(MOST, units * unit)
    if count > 0 then
      -- More was used than was taken.
      parts = min(MOST, used + min(MOST, count * unit))
    elseif back > 0 and state and queues == 0 then
      parts = max(0, used - back)
    elseif back > 0 and state and its_unit == unit then
      -- The last turn, if nobody came after it, and if it has not come. The mark is what was in use
      -- after it, at the tick of the charge.
      local its_mark = mine + (written - floor(at / tick)) * drain
      if its_mark == mark and now < turn then instant, parts = written, max(0, mine - back) end
    end
  else
    local room = used > most and 0 or floor((full - used) / unit)
    if used > full then room = -1 end
    result = granted(op, count, units, room)
    local total = units * result
    local allowed = full - total * unit
    if total > 0 then allowed = min(allowed, most) end
    if total > capacity or used > allowed then
      result = -1
      -- Should the clock have gone back for good, the state must not wait for its old time again.
      if standing < written and not is_look(op) then parts = used end
    elseif total > 0 and not is_look(op) then
      parts = used + total * unit
    end
  end
  if not parts then return result, before end
  return result, before, pack('<ddd', instant * tick, parts, unit), (instant + ceil(parts / drain)) * tick
end
