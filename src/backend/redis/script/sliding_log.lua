-- Logs of admissions: see `SlidingLog`. The state is the sum of all units, the last turn that was given out
-- before it came and when that was (0: there is none), and for each admission its instant and its units,
-- oldest first. What it decided on is told by two of them: the one that has to leave first, with all before
-- it, and the newest with the rest; by the last turn; and by how many more there is place for.
local function sliding_log(state, job, from, now, as, as_count, not_before)
  local TAKE_UP_TO, PEEK, SETTLE, COUNT, FILL, LOWER, TURN, MOST = 1, 2, 3, 4, 5, 6, 7, 9007199254740991
  local op, units, count, at, limit, period, most, ahead = struct.unpack('<dddddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT or op == TURN
  -- What takes nothing waits for nobody.
  if not not_before or units * count == 0 then not_before = now end
  local log, sum, turn, given_at, entries, changed = '', 0, 0, 0, 0, false
  if state then
    must(#state >= 24 and (#state - 24) % 16 == 0)
    sum, turn, given_at = struct.unpack('<ddd', state)
    must(whole(sum) and whole(turn) and whole(given_at))
    log, entries = string.sub(state, 25), (#state - 24) / 16
  end
  local function entry(place)
    local its, parts = struct.unpack('<dd', log, place * 16 - 15)
    must(whole(its) and whole(parts))
    return its, parts
  end
  local gives_back = op == SETTLE and count == 0
  local last = turn > now and given_at or entries > 0 and entry(entries) or now
  if last - now > period and not gives_back then
    -- The clock went back by more than a period. Those who have turns wait no less for them.
    local at_ = now + (turn > now and turn - given_at or 0)
    log, entries, changed = struct.pack('<dd', at_, sum), 1, true
    if at_ > now then turn, given_at = at_, now else turn, given_at = 0, 0 end
  end
  -- Entries are in order: a clock that went back waits at the newest, and everybody at a turn to come.
  local is_ahead = turn > now or not_before > now
  local instant = math.max(not_before, turn, entries > 0 and entry(entries) or now)
  local oldest, used = 1, sum
  local function leave(until_)
    while oldest <= entries do
      local its, parts = entry(oldest)
      if until_ - its < period then break end
      oldest, used = oldest + 1, used - parts
    end
  end
  leave(instant)
  local places = math.max(0, most - (entries - oldest + 1))
  local full = places == 0

  local newest = entries > 0 and entry(entries) or now
  local function told(first, parts)
    must(parts >= 0 and parts <= used)
    return struct.pack('<ddddddd', places, turn, given_at, first, parts, newest, used - parts)
  end
  local function written(sum_, entries_)
    return struct.pack('<ddd', sum_, turn, given_at) .. entries_
  end
  local function done(count_, before)
    if not changed or is_look then return count_, before end
    -- Without what has left the window.
    log = string.sub(log, oldest * 16 - 15)
    return count_, before, written(used, log), math.max(turn, newest + period)
  end
  local function add(its, parts)
    parts = math.min(parts, MOST - used)
    if parts <= 0 then return end
    if entries >= oldest and newest == its then
      local _, old = entry(entries)
      log = string.sub(log, 1, -9) .. struct.pack('<d', old + parts)
    else
      log = log .. struct.pack('<dd', its, parts)
    end
    newest, used, changed = its, used + parts, true
  end

  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    if count > 0 then
      -- Use that cannot be refused joins the newest entry if there is no place, and leaves with it.
      add(full and newest or instant, count)
      if not is_ahead then turn, given_at = 0, 0 end
      return done(0, '')
    end
    local low, high = 1, entries
    while low < high do
      local middle = math.floor((low + high) / 2)
      if entry(middle) < at then low = middle + 1 else high = middle end
    end
    if low <= entries and entry(low) == at then
      local _, parts = entry(low)
      local back = math.min(units, parts)
      local left = back == parts and '' or struct.pack('<dd', at, parts - back)
      local older, newer = string.sub(log, 1, low * 16 - 16), string.sub(log, low * 16 + 1)
      log = written(sum - back, older .. left .. newer)
      return 0, '', log, math.max(turn, newest + period)
    end
    return 0, ''
  end

  -- When so many units find room that have none at once (nil: they have), the entry that has to leave for
  -- that, what is told of it with that, and how much has left by then.
  local function turn_of(parts)
    if used <= limit - parts and not (full and parts > 0) then
      if is_ahead and parts > 0 then return instant, newest, used, 0 end
      return nil, newest, used, 0
    end
    local excess, first, before = used - (limit - parts), newest, 0
    -- There may be more entries than there is place for, if there was place for more before.
    local crowd = parts > 0 and entries - oldest + 2 - most or 0
    for place = oldest, entries do
      local its, its_parts = entry(place)
      excess, first, before, crowd = excess - its_parts, its, before + its_parts, crowd - 1
      if excess <= 0 and crowd <= 0 then return first + period, first, before, before end
    end
    return MOST, first, before, before
  end
  local function is_near(turn_)
    return not turn_ or ahead > 0 and op ~= LOWER and turn_ - ahead <= now
  end

  if op == TURN then
    if units * count > limit then return -1, told(newest, used) end
    local turn_, first, before = turn_of(units * count)
    return turn_ and math.min(MOST, turn_) or now, told(first, before)
  end
  local room = used > limit and -1 or full and 0 or limit - used
  if op == TAKE_UP_TO or op == COUNT then
    local turn_, _, _, gone = turn_of(math.min(units, limit))
    if not is_near(turn_) or units > limit then
      room = -1
    elseif turn_ then
      room = limit - (used - gone)
    end
  elseif op == LOWER and is_ahead then
    room = 0
  end
  count = granted(op, count, units, room)
  local total = units * count
  if total > limit then return done(-1, told(newest, used)) end
  local turn_, first, before = turn_of(total)
  before = told(first, before)
  if not is_near(turn_) then return done(-1, before) end
  if total > 0 and not is_look then
    leave(turn_ or instant)
    turn, given_at = turn_ or 0, turn_ and now or 0
    add(turn_ or instant, total)
  end
  return done(count, before)
end
