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
  local function changed(count_, instant, parts)
    return count_, before, pack('<ddd', instant * tick, parts, unit), (instant + ceil(parts / drain)) * tick
  end

  if op == FILL then op, count = SETTLE, capacity end
  if op == SETTLE then
    if count > 0 then
      -- More was used than was taken.
      return changed(0, standing, min(MOST, used + min(MOST, count * unit)))
    end
    local back = min(MOST, units * unit)
    if state and queues == 0 then return changed(0, standing, max(0, used - back)) end
    -- The last turn, if nobody came after it, and if it has not come.
    if state and its_unit == unit and mine == mark and written == floor(at / tick) and now < turn then
      return changed(0, written, max(0, mine - back))
    end
    return 0, before
  end

  local room = used > most and 0 or floor((full - used) / unit)
  if used > full then room = -1 end
  count = granted(op, count, units, room)
  local total = units * count
  if total > capacity then return -1, before end
  local allowed = full - total * unit
  if total > 0 then allowed = min(allowed, most) end
  if used > allowed then
    if standing < written and not is_look(op) then return changed(-1, standing, used) end
    return -1, before
  end
  if total == 0 or is_look(op) then return count, before end
  return changed(count, standing, used + total * unit)
end
