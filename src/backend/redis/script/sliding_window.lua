-- Sliding windows in segments: see `SlidingWindow`. The state is the newest segment, the one that was the
-- present when it was written, the width of a segment, and the use of each at the place of its number modulo
-- their number. The newest is later than the present while there are turns to come, which are given out
-- so much `ahead`.
local function sliding_window(state, job, from, now, as, as_count, not_before)
  local TAKE, TAKE_UP_TO, PEEK, SETTLE = 0, 1, 2, 3
  local COUNT, FILL, LOWER, TURN, MOST = 4, 5, 6, 7, 9007199254740991
  local MOST_SLOTS = 61
  local op, units, count, at, limit, width, segments, ahead = struct.unpack('<dddddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT or op == TURN
  -- What takes nothing waits for nobody.
  if not not_before or units * count == 0 then not_before = now end
  local slots = segments + 1
  local present = math.floor(now / width)
  local newest, written_at, counts, changed = present, present, {}, false
  for place = 0, segments do counts[place] = 0 end
  local its_slots = slots
  if state then
    its_slots = #state / 8 - 3
    must(its_slots >= 1 and its_slots <= MOST_SLOTS and its_slots == math.floor(its_slots))
    local its = { struct.unpack('<' .. string.rep('d', its_slots + 3), state) }
    for place = 1, its_slots + 3 do must(whole(its[place])) end
    local its_newest, its_written, its_width = its[1], its[2], its[3]
    must(its_width > 0)
    if its_width == width and its_slots == slots and its_written <= present + slots then
      newest, written_at = its_newest, its_written
      for place = 0, segments do counts[place] = its[place + 4] end
    else
      -- Another shape, or a clock that went back for good: what counts, counts from now, or not before
      -- the last turn, for which they wait no less.
      if its_newest > its_written then
        if its_written * its_width <= now + width * slots then
          newest = math.max(present, math.ceil(its_newest * its_width / width))
        else
          newest = present + math.ceil((its_newest - its_written) * its_width / width) + 1
        end
      end
      local oldest = math.floor(math.max(0, now - width * segments) / its_width)
      local sum = 0
      for segment = math.max(oldest, math.max(0, its_newest - (its_slots - 1))), its_newest do
        sum = sum + its[segment % its_slots + 4]
      end
      counts[newest % slots], changed = math.min(MOST, sum), true
    end
  end

  local function written()
    local numbers = { newest, written_at, width }
    for place = 0, segments do numbers[place + 4] = counts[place] end
    return struct.pack('<' .. string.rep('d', slots + 3), unpack(numbers))
  end
  local before = struct.pack('<d', its_slots) .. (state or written())
  local function add(segment, parts)
    for stale = 0, math.min(segment - newest, slots) - 1 do
      counts[(segment - stale) % slots] = 0
    end
    newest = segment
    counts[segment % slots] = math.min(MOST, counts[segment % slots] + parts)
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
    if newest > written_at then idle = math.max(idle, (newest + slots) * width) end
    return count_, before, written(), idle
  end

  -- A clock that went back waits at the newest segment, if there is any use to wait for. So does
  -- everybody if that is the segment of a turn to come.
  local is_ahead = newest > written_at and newest > present
  local latest, used = math.max(present, newest), 0
  local oldest = math.max(0, latest - segments)
  for segment = oldest, newest do used = used + counts[segment % slots] end
  used = math.min(MOST, used)
  local next_ = (used > 0 or is_ahead) and latest or present
  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    before = ''
    if count > 0 then
      add(next_, count)
      written_at = is_ahead and present or next_
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

  if not_before > now then
    is_ahead = true
    if math.floor(not_before / width) > next_ then
      next_, used = math.floor(not_before / width), 0
      for segment = math.max(0, next_ - segments), newest do used = used + counts[segment % slots] end
    end
  end
  local total = units * count
  if (op == TAKE or op == PEEK) and not is_ahead and total <= limit and used <= limit - total then
    -- The usual: there is room.
    if total > 0 and not is_look then
      add(next_, total)
      written_at = next_
    end
    return done(count)
  end

  -- The segment in which so many units find room, whether that is to be waited for, and what is in use there.
  local function turn(parts)
    local excess, there = used - (limit - parts), used
    if excess <= 0 then return next_, is_ahead and parts > 0, used end
    for segment = math.max(0, next_ - segments), newest do
      local its = counts[segment % slots]
      excess, there = excess - its, math.max(0, there - its)
      if excess <= 0 then return segment + slots, true, there end
    end
    return MOST, true, 0
  end
  local function is_near(segment, is_later)
    if not is_later then return true end
    return ahead > 0 and op ~= LOWER and math.max(not_before, segment * width) - ahead <= now
  end

  if op == TURN then
    if total > limit then return -1, before end
    local segment, is_later = turn(total)
    return is_later and math.min(MOST, segment * width) or now, before
  end
  if op == TAKE_UP_TO or op == COUNT then
    local segment, is_later, there = turn(math.min(units, limit))
    local room = is_near(segment, is_later) and units <= limit and limit - there or -1
    count = granted(op, count, units, room)
  else
    count = granted(op, count, units, (op == LOWER and is_ahead) and 0 or limit - used)
  end
  total = units * count
  if total > limit then return done(-1) end
  local segment, is_later = turn(total)
  if not is_near(segment, is_later) then return done(-1) end
  if total > 0 and not is_look then
    add(segment, total)
    written_at = is_later and present or segment
  end
  return done(count)
end
