-- Logs of admissions: see `SlidingLog`. The state is the sum of all units, and for each admission
-- its instant and its units, oldest first. What it decided on is told by two of them: the one that
-- has to leave first, with all before it, and the newest with the rest; and by how many more there
-- is place for.
local function sliding_log(state, job, from, now, as, as_count)
  local PEEK, SETTLE, COUNT, FILL, MOST = 2, 3, 4, 5, 9007199254740991
  local op, units, count, at, limit, period, most = struct.unpack('<ddddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT
  local log, sum, entries, changed = state or '', 0, 0, false
  if state then
    must(#state >= 8 and (#state - 8) % 16 == 0)
    sum, entries = struct.unpack('<d', state), (#state - 8) / 16
    must(whole(sum))
  end
  local function entry(place)
    local its, parts = struct.unpack('<dd', log, place * 16 - 7)
    must(whole(its) and whole(parts))
    return its, parts
  end
  local gives_back = op == SETTLE and count == 0
  if entries > 0 and entry(entries) - now > period and not gives_back then
    -- The clock went back by more than a period.
    log, entries, changed = struct.pack('<ddd', sum, now, sum), 1, true
  end
  -- Entries are in order: a clock that went back waits at the newest.
  local instant = entries > 0 and math.max(now, (entry(entries))) or now
  local oldest, used = 1, sum
  while oldest <= entries do
    local its, parts = entry(oldest)
    if instant - its < period then break end
    oldest, used = oldest + 1, used - parts
  end
  local places = math.max(0, most - (entries - oldest + 1))
  local full = places == 0

  local newest = entries > 0 and entry(entries) or now
  local function told(first, parts)
    must(parts >= 0 and parts <= used)
    return struct.pack('<ddddd', places, first, parts, newest, used - parts)
  end
  local function done(count_, before)
    if not changed or is_look then return count_, before end
    -- Without what has left the window.
    log = struct.pack('<d', used) .. string.sub(log, oldest * 16 - 7)
    return count_, before, log, newest + period
  end
  local function add(its, parts)
    parts = math.min(parts, MOST - used)
    if parts <= 0 then return end
    if entries >= oldest and newest == its then
      local _, old = entry(entries)
      log = string.sub(log, 1, -9) .. struct.pack('<d', old + parts)
    else
      if log == '' then log = struct.pack('<d', 0) end
      log = log .. struct.pack('<dd', its, parts)
    end
    newest, used, changed = its, used + parts, true
  end

  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    if count > 0 then
      -- Use that cannot be refused joins the newest entry if there is no place, and leaves with it.
      add(full and newest or instant, count)
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
      local older, newer = string.sub(log, 9, low * 16 - 8), string.sub(log, low * 16 + 9)
      log = struct.pack('<d', sum - back) .. older .. left .. newer
      return 0, '', log, newest + period
    end
    return 0, ''
  end

  count = granted(op, count, units, used > limit and -1 or full and 0 or limit - used)
  local total = units * count
  if total > limit then return done(-1, told(newest, used)) end
  if used > limit - total or full and total > 0 then
    local excess, first, before = used - (limit - total), newest, 0
    for place = oldest, entries do
      local its, parts = entry(place)
      excess, first, before = excess - parts, its, before + parts
      if excess <= 0 then break end
    end
    return done(-1, told(first, before))
  end
  local before = told(newest, used)
  if total > 0 and not is_look then add(instant, total) end
  return done(count, before)
end
