-- Several limits on one key: see `Plan`. The state has a part for each: its kind, the instant from
-- which it is as good as none, its length, and what it is. A job has one for each limit, too.
local algorithms = { meter, fixed_window, sliding_window, sliding_counter, sliding_log }
local function plan(state, job, from, now, as, as_count)
  local TAKE, TAKE_UP_TO, PEEK, SETTLE, COUNT, FILL, LOWER = 0, 1, 2, 3, 4, 5, 6
  local op, units, count, at, limits = struct.unpack('<ddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT
  local parts, idles, kinds, jobs, place = {}, {}, {}, {}, 1
  while state and place <= #state do
    must(place + 23 <= #state)
    local kind, idle, length = struct.unpack('<ddd', state, place)
    must(whole(length) and idle >= 0)
    local part = string.sub(state, place + 24, place + 23 + length)
    must(#part == length)
    parts[#kinds + 1], idles[#kinds + 1], kinds[#kinds + 1] = length > 0 and part or nil, idle, kind
    place = place + 24 + length
  end
  place = from + 40
  for limit = 1, limits do
    local kind, length = struct.unpack('<dd', job, place)
    if kinds[limit] ~= kind then parts[limit], idles[limit] = nil, 0 end
    kinds[limit], jobs[limit] = kind, place + 16
    place = place + 16 + length
  end

  local changed, seen, refused = false, {}, {}
  local function each(limit, its_op, its_count)
    local decide = algorithms[kinds[limit]]
    local granted_, before, new, idle =
      decide(parts[limit], job, jobs[limit], now, its_op, its_count)
    if new then parts[limit], idles[limit], changed = new, idle, true end
    return granted_, before
  end

  -- All are looked at before anything is taken.
  local is_settled = op == SETTLE or op == FILL
  local is_refused = false
  if is_settled then
    for limit = 1, limits do each(limit, as, as_count) end
    count = 0
  elseif op == LOWER then
    local left = count
    count = 0
    for limit = 1, limits do
      local is_meant = limit - 1 == at
      local granted_, before = each(limit, is_meant and LOWER or PEEK, is_meant and left or 0)
      seen[limit] = before
      if is_meant then count, is_refused = granted_, granted_ < 0 end
    end
  else
    local up_to = op == TAKE_UP_TO or op == COUNT
    local most = count
    for limit = 1, limits do
      local granted_, before = each(limit, up_to and COUNT or PEEK, most)
      seen[limit], refused[limit] = before, granted_ < 0
      is_refused = is_refused or granted_ < 0
      if up_to then count = math.min(count, math.max(1, granted_)) end
    end
  end
  if not is_settled and op ~= LOWER and not is_look then
    for limit = 1, limits do
      -- A limit that refuses takes nothing, but may note that the clock went back.
      if refused[limit] or not is_refused then each(limit, TAKE, count) end
    end
  end
  if is_refused then count = -1 end
  local before = table.concat(seen)
  if not changed then return count, before end

  local written, idle = {}, 0
  for limit = 1, limits do
    local part = parts[limit] or ''
    idle = math.max(idle, idles[limit] or 0)
    written[limit] = struct.pack('<ddd', kinds[limit], idles[limit] or 0, #part) .. part
  end
  return count, before, table.concat(written), idle
end
