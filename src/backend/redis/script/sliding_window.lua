-- Sliding windows in segments: see `SlidingWindow`. The state is the newest segment, the width of a
-- segment, and the use of each at the place of its number modulo their number.
local function sliding_window(key, job)
  local limit, width, segments, op, units, count, at = unpack_('<ddddddd', job)
  local slots = segments + 1
  local shape = '<' .. string.rep('d', slots + 2)
  local present = floor(now / width)
  local written = call('GET', key)
  local newest, counts, changed = present, nil, false
  if written then
    local its_slots = #written / 8 - 2
    local state = { unpack_('<' .. string.rep('d', its_slots + 2), written) }
    local its_newest, its_width = state[1], state[2]
    if its_width == width and its_slots == slots and its_newest <= present + slots then
      newest, counts = its_newest, {}
      for place = 0, segments do counts[place] = state[place + 3] end
    else
      -- Another shape, or a clock that went back for good: what counts, counts from now.
      local oldest = floor(max(0, now - width * segments) / its_width)
      local sum = 0
      for segment = max(oldest, max(0, its_newest - (its_slots - 1))), its_newest do
        sum = sum + state[segment % its_slots + 3]
      end
      counts, changed = {}, true
      for place = 0, segments do counts[place] = 0 end
      counts[present % slots] = min(MOST, sum)
    end
  else
    counts = {}
    for place = 0, segments do counts[place] = 0 end
  end

  present = max(present, newest)
  local oldest = max(0, present - segments)
  local used = 0
  for segment = oldest, newest do used = used + counts[segment % slots] end
  used = min(MOST, used)

  local function leaves_at(segment)
    return (segment + slots) * width
  end
  local function keep()
    local idle = 0
    for segment = newest, max(0, newest - segments), -1 do
      if counts[segment % slots] > 0 then
        idle = (segment + 1 + segments) * width
        break
      end
    end
    local state = { newest, width }
    for place = 0, segments do state[place + 3] = counts[place] end
    put(key, pack(shape, unpack(state)), idle)
  end
  local function add(parts)
    for segment = 0, min(present - newest, slots) - 1 do counts[(present - segment) % slots] = 0 end
    newest = present
    counts[present % slots] = min(MOST, counts[present % slots] + parts)
  end

  if op == SETTLE then
    if count > 0 then
      add(count)
      keep()
    elseif written then
      local charged = floor(at / width)
      if charged >= oldest and charged <= newest and charged + slots > newest then
        counts[charged % slots] = max(0, counts[charged % slots] - units)
        changed = true
      end
      if changed then keep() end
    end
    return pack('<d', 1)
  end

  count = granted(op, count, units, limit - used)
  local total = units * count
  local wait = -1
  local allowed = 0
  if total <= limit and used <= limit - total then
    allowed, wait = 1, 0
    if total > 0 then
      add(total)
      used = used + total
      changed = true
    end
  else
    if total <= limit then
      local excess = used - (limit - total)
      for segment = oldest, newest do
        excess = excess - counts[segment % slots]
        if excess <= 0 then
          wait = until_(leaves_at(segment))
          break
        end
      end
    end
  end
  if changed and op ~= PEEK then keep() end
  local reset = 0
  for segment = newest, max(0, present - segments), -1 do
    if counts[segment % slots] > 0 then
      reset = until_(leaves_at(segment))
      break
    end
  end
  local state = ''
  if allowed == 0 then
    local numbers = { newest }
    for place = 0, segments do numbers[place + 2] = counts[place] end
    state = pack('<' .. string.rep('d', slots + 1), unpack(numbers))
  end
  return pack('<ddddd', allowed, max(0, limit - used), reset, wait, count) .. state
end
local decide = sliding_window
