-- Token buckets, leaky buckets and the bucket of leases: see `Meter`. The state is the tick of the
-- last use, the parts in use then, and the parts in a unit.
local function meter(key, job)
  local tick, drain, unit, capacity, most, burst, queues, op, units, count, at, mark, turn =
    unpack_('<ddddddddddddd', job)
  local full = capacity * unit
  local current = floor(now / tick)
  local state = call('GET', key)
  local written, used = current, 0
  if state then
    local its_unit
    written, used, its_unit = unpack_('<ddd', state)
    used = converted(used, unit, its_unit)
  end

  -- Standing: what has drained since, or a clock that has gone back.
  local standing = current
  if current >= written then
    local drained = (current - written) * drain
    used = drained >= used and 0 or used - drained
  elseif written - current <= ceil(used / drain) then
    standing = written
  end
  local gone_back = standing < written

  local function keep(parts)
    put(key, pack('<ddd', standing, parts, unit), (standing + ceil(parts / drain)) * tick)
  end
  local function drained_after(parts)
    return until_((standing + ceil(parts / drain)) * tick)
  end
  -- Whole units; less than none in debt.
  local function left(parts)
    if parts > full then return -1 end
    return parts > most and 0 or floor((full - parts) / unit)
  end

  if op == SETTLE then
    if count > 0 then
      -- More was used than was taken.
      keep(min(MOST, used + min(MOST, count * unit)))
    elseif queues == 0 then
      if state then keep(max(0, used - min(MOST, units * unit))) end
    elseif state then
      -- The last turn, if nobody came after it, and if it has not come.
      local then_, parts, its_unit = unpack_('<ddd', state)
      if its_unit == unit and parts == mark and then_ == floor(at / tick) and now < turn then
        standing = then_
        keep(max(0, parts - min(MOST, units * unit)))
      end
    end
    return pack('<d', 1)
  end

  count = granted(op, count, units, left(used))
  local total = units * count
  if total > capacity then
    return pack('<ddddddd', 0, max(0, left(used)), drained_after(used), -1, 0, standing, used)
  end
  local need = total * unit
  local allowed = full - need
  if total > 0 then allowed = min(allowed, most) end
  if used > allowed then
    if gone_back and op ~= PEEK then keep(used) end
    local wait, reset = drained_after(used - allowed), drained_after(used)
    return pack('<ddddddd', 0, max(0, left(used)), reset, wait, 0, standing, used)
  end
  local after = used + need
  local delay = 0
  if total > 0 then
    if queues == 1 then
      if used > 0 then delay = drained_after(used) end
    elseif after > burst * unit then
      delay = drained_after(after - burst * unit)
    end
    if op ~= PEEK then keep(after) end
  end
  return pack('<ddddddd', 1, max(0, left(after)), drained_after(after), delay, count, standing, after)
end
local decide = meter
