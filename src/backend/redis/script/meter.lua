-- Token buckets, leaky buckets and the bucket of leases: see `Meter`. The state is the time of the
-- last use, the parts in use then, and the parts in a unit.
local function meter(state, job, from, now, as, as_count, not_before)
  local PEEK, SETTLE, COUNT, FILL, LOWER, TURN, MOST = 2, 3, 4, 5, 6, 7, 9007199254740991
  local op, units, count, at, mark, turn, tick, drain, unit, capacity, most, queues, promised =
    struct.unpack('<ddddddddddddd', job, from)
  op, count = as or op, as_count or count
  local full = capacity * unit
  local current = (now - now % tick) / tick
  local written, used, its_unit = current, 0, unit
  local before = state
  if state then
    if #state ~= 24 then error('none of ours') end
    written, used, its_unit = struct.unpack('<ddd', state)
    -- As `whole` has it, without a call for each.
    if not (written >= 0 and written <= MOST and written % 1 == 0
        and used >= 0 and used <= MOST and used % 1 == 0
        and its_unit > 0 and its_unit <= MOST and its_unit % 1 == 0) then
      error('none of ours')
    end
    written = (written - written % tick) / tick
    if used > 0 and its_unit ~= unit then
      -- In other parts, rounded up.
      local whole = math.floor(used / its_unit)
      if whole > MOST / unit then
        used = MOST
      else
        local quotient, rest = fraction(used - whole * its_unit, unit, its_unit)
        used = math.min(MOST, whole * unit + quotient + (rest > 0 and 1 or 0))
      end
    end
  else
    before = struct.pack('<ddd', now, 0, unit)
  end
  local mine = used

  -- Standing: what has drained since, or a clock that has gone back.
  local standing = current
  if current >= written then
    local drained = (current - written) * drain
    used = drained >= used and 0 or used - drained
  elseif written - current <= math.ceil(used / drain) then
    standing = written
  end
  local instant, parts, result = standing, nil, 0

  if op == FILL then op, count = SETTLE, capacity end
  if op == SETTLE then
    before = ''
    local back = math.min(MOST, units * unit)
    if count > 0 then
      -- More was used than was taken.
      parts = math.min(MOST, used + math.min(MOST, count * unit))
    elseif back > 0 and state and queues == 0 then
      parts = math.max(0, used - back)
    elseif back > 0 and state and its_unit == unit then
      -- The last turn, if nobody came after it, and if it has not come. The mark is what was in use
      -- after it, at the tick of the charge.
      local its_mark = mine + (written - math.floor(at / tick)) * drain
      if its_mark == mark and now < turn then
        instant, parts = written, math.max(0, mine - back)
      end
    end
  elseif op == TURN then
    local total = units * count
    if total > capacity then return -1, before end
    local over = queues == 0 and used + total * unit - full or total > 0 and used or 0
    if over <= 0 then return now, before end
    return math.min(MOST, math.max(now, (standing + math.ceil(over / drain)) * tick)), before
  else
    local is_look = op == PEEK or op == COUNT
    result = count
    if op ~= 0 and op ~= PEEK then
      local room = used > most and 0 or math.floor((full - used) / unit)
      if used > full then room = -1 end
      result = granted(op, count, units, room)
    end
    local total, holds, before_it = units * result, full, used
    -- In a plan with turns a bucket has what comes in that time, too.
    if promised > 0 and op ~= LOWER then holds = promised * unit end
    if not_before and total > 0 and not_before > now then
      local least = math.max(0, math.ceil(not_before / tick) - standing) * drain
      if queues == 0 then least = math.max(0, least + full - total * unit) end
      before_it = math.max(used, least)
    end
    local allowed = holds - total * unit
    if total > 0 and allowed > most then allowed = most end
    if total > capacity or before_it > allowed then
      result = -1
      -- Should the clock have gone back for good, the state must not wait for its old time again.
      if standing < written and not is_look then parts = used end
    elseif total > 0 and not is_look then
      parts = before_it + total * unit
    end
  end
  if not parts then
    -- A refusal changes nothing, but what was written by another limit may drain more slowly by this one.
    if result >= 0 or op == PEEK or op == COUNT or its_unit == unit then return result, before end
    return result, before, nil, (standing + math.ceil(used / drain)) * tick
  end
  local idle = (instant + math.ceil(parts / drain)) * tick
  return result, before, struct.pack('<ddd', instant * tick, parts, unit), idle
end
