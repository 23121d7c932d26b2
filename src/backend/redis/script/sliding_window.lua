-- Sliding windows in segments: see `SlidingWindow`. The state is the newest segment, the width of a
-- segment, and the use of each at the place of its number modulo their number.
local function sliding_window(state, job, from, now, as, as_count)
  local PEEK, SETTLE, COUNT, FILL, MOST = 2, 3, 4, 5, 9007199254740991
  local MOST_SLOTS = 61
  local op, units, count, at, limit, width, segments = struct.unpack('<ddddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT
  local slots = segments + 1
  local present = math.floor(now / width)
  local newest, counts, changed = present, {}, false
  for place = 0, segments do counts[place] = 0 end
  local its_slots = slots
  if state then
    its_slots = #state / 8 - 2
    must(its_slots >= 1 and its_slots <= MOST_SLOTS and its_slots == math.floor(its_slots))
    local its = { struct.unpack('<' .. string.rep('d', its_slots + 2), state) }
    for place = 1, its_slots + 2 do must(whole(its[place])) end
    local its_newest, its_width = its[1], its[2]
    must(its_width > 0)
    if its_width == width and its_slots == slots and its_newest <= present + slots then
      newest = its_newest
      for place = 0, segments do counts[place] = its[place + 3] end
    else
      -- Another shape, or a clock that went back for good: what counts, counts from now.
      local oldest = math.floor(math.max(0, now - width * segments) / its_width)
      local sum = 0
      for segment = math.max(oldest, math.max(0, its_newest - (its_slots - 1))), its_newest do
        sum = sum + its[segment % its_slots + 3]
      end
      counts[present % slots], changed = math.min(MOST, sum), true
    end
  end

  local function written()
    local numbers = { newest, width }
    for place = 0, segments do numbers[place + 3] = counts[place] end
    return struct.pack('<' .. string.rep('d', slots + 2), unpack(numbers))
  end
  local before = struct.pack('<d', its_slots) .. (state or written())
  local function add(parts)
    for segment = 0, math.min(present - newest, slots) - 1 do
      counts[(present - segment) % slots] = 0
    end
    newest = present
    counts[present % slots] = math.min(MOST, counts[present % slots] + parts)
    changed = true
  end
  local function done(count_)
    if not changed or is_look then return count_, before end
    local idle = 0
    for segment = newest, math.max(0, newest - segments), -1 do
      if counts[segment % slots] > 0 then
        idle = (segment + 1 + segments) * width
        break
      end
    end
    return count_, before, written(), idle
  end

  -- A clock that went back waits at the newest segment, if there is any use to wait for.
  local latest, used = math.max(present, newest), 0
  local oldest = math.max(0, latest - segments)
  for segment = oldest, newest do used = used + counts[segment % slots] end
  used = math.min(MOST, used)
  if used > 0 then present = latest end
  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    before = ''
    if count > 0 then
      add(count)
    elseif state and units > 0 then
      local charged = math.floor(at / width)
      if charged >= oldest and charged <= newest and charged + slots > newest then
        counts[charged % slots] = math.max(0, counts[charged % slots] - units)
        changed = true
      end
    else
      changed = false
    end
    return done(0)
  end

  count = granted(op, count, units, limit - used)
  local total = units * count
  if total > limit or used > limit - total then return done(-1) end
  if total > 0 and not is_look then add(total) end
  return done(count)
end
