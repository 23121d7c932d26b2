-- Token buckets, leaky buckets and the bucket of leases: see `Meter`. The state is the tick of the
-- last use, the parts in use then, and the parts in a unit.
local function meter(key, job)
  local tick, drain, unit, capacity, most, burst, queues, op, units, count, mark, at, until_at =
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
  local function until_(parts)
    return max(0, (standing + ceil(parts / drain)) * tick - now)
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
      if its_unit == unit and parts == mark and then_ == floor(at / tick) and now < until_at then
        standing = then_
        keep(max(0, parts - min(MOST, units * unit)))
      end
    end
    return ''
  end

  local room = full - used
  if op == TAKE_UP_TO then
    local fits = count
    if units > 0 then
      fits = (used > full or used > most) and 0 or floor(floor(room / unit) / units)
    elseif used > full then
      fits = 0
    end
    count = min(count, max(1, fits))
  end
  local total = units * count
  if total > capacity then
    local remaining = (used > full or used > most) and 0 or floor(room / unit)
    return pack('<ddddddd', 0, remaining, until_(used), -1, 0, standing, used)
  end
  local need = total * unit
  local allowed = full - need
  if total > 0 then allowed = min(allowed, most) end
  if used > allowed then
    local remaining = (used > full or used > most) and 0 or floor(room / unit)
    local wait = until_(used - allowed)
    if gone_back and op ~= PEEK then keep(used) end
    return pack('<ddddddd', 0, remaining, until_(used), wait, 0, standing, used)
  end
  local after = used + need
  local remaining = (after > full or after > most) and 0 or floor((full - after) / unit)
  local delay = 0
  if total > 0 then
    if queues == 1 then
      if used > 0 then delay = until_(used) end
    elseif after > burst * unit then
      delay = until_(after - burst * unit)
    end
    if op ~= PEEK then keep(after) end
  end
  return pack('<ddddddd', 1, remaining, until_(after), delay, count, standing, after)
end
local decide = meter
