-- Several limits on one key: see `Plan`. The state has a part for each: its kind, the instant from
-- which it is as good as none, the lengths of its name and of itself, and these two. A job has one for
-- each limit, too. Parts are known by their kinds and names: who asks may have others, or have them in
-- another order. Those that a job has no limit for stay until they are as good as none, MOST_PARTS at the
-- most.
local algorithms = { meter, fixed_window, sliding_window, sliding_counter, sliding_log }
local MOST_PARTS, METER = 64, 1
local function plan(state, job, from, now, as, as_count)
  local TAKE, TAKE_UP_TO, PEEK, SETTLE, COUNT, FILL, LOWER, TURN = 0, 1, 2, 3, 4, 5, 6, 7
  local op, units, count, at, limits, ahead = struct.unpack('<dddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT
  local parts, idles, kinds, names, jobs = {}, {}, {}, {}, {}
  local kept, others, place = {}, {}, 1
  while state and place <= #state do
    must(place + 31 <= #state)
    local kind, idle, letters, length = struct.unpack('<dddd', state, place)
    must(whole(letters) and whole(length) and idle >= 0)
    place = place + 32 + letters + length
    must(place - 1 <= #state)
    local name = string.sub(state, place - length - letters, place - length - 1)
    local known = kind .. ' ' .. name
    kept[known] = { kind, idle, name, string.sub(state, place - length, place - 1) }
    others[#others + 1] = known
  end
  place = from + 48
  for limit = 1, limits do
    local kind, letters, length = struct.unpack('<ddd', job, place)
    local name = string.sub(job, place + 24, place + 23 + letters)
    local known = kind .. ' ' .. name
    local its = kept[known]
    idles[limit] = 0
    if its then parts[limit], idles[limit] = #its[4] > 0 and its[4] or nil, its[2] end
    kept[known] = nil
    kinds[limit], names[limit], jobs[limit] = kind, name, place + 24 + letters
    place = place + 24 + letters + length
  end

  local changed, latest, seen, refused = false, 0, {}, {}
  local function each(limit, its_op, its_count, not_before)
    local decide = algorithms[kinds[limit]]
    local granted_, before, new, idle =
      decide(parts[limit], job, jobs[limit], now, its_op, its_count, not_before)
    if new then parts[limit], idles[limit], changed = new, idle, true end
    latest = math.max(latest, idle or 0)
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
  elseif ahead > 0 then
    -- The latest of the turns that the limits have for it, in the longest steps in which one of them tells
    -- time. What fits at a turn fits at any later one.
    if op == TAKE_UP_TO or op == COUNT then count = math.min(count, 1) end
    local start, step = now, 1
    for limit = 1, limits do
      local its_start, before = each(limit, TURN, count)
      seen[limit] = before
      if its_start < 0 then is_refused = true end
      start = math.max(start, its_start)
      if kinds[limit] == METER then
        local tick = struct.unpack('<d', job, jobs[limit] + 48)
        step = math.max(step, tick)
      end
    end
    if start > now then start = math.ceil(start / step) * step end
    for limit = 1, limits do
      if not is_refused and each(limit, PEEK, count, start) < 0 then is_refused = true end
    end
    for limit = 1, limits do
      if not is_refused and not is_look then each(limit, TAKE, count, start) end
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
  if not is_settled and op ~= LOWER and not is_look and ahead == 0 then
    for limit = 1, limits do
      -- A limit that refuses takes nothing, but may note that the clock went back.
      if refused[limit] or not is_refused then each(limit, TAKE, count) end
    end
  end
  if is_refused then count = -1 end
  local before = table.concat(seen)
  if not changed then
    if latest == 0 then return count, before end
    -- The key must outlive all of its parts.
    for limit = 1, limits do latest = math.max(latest, idles[limit]) end
    for _, its in pairs(kept) do latest = math.max(latest, its[2]) end
    return count, before, nil, latest
  end

  local written, idle = {}, 0
  local function write_part(kind, its_idle, name, part)
    idle = math.max(idle, its_idle)
    written[#written + 1] = struct.pack('<dddd', kind, its_idle, #name, #part) .. name .. part
  end
  for limit = 1, limits do
    write_part(kinds[limit], idles[limit], names[limit], parts[limit] or '')
  end
  for other = 1, #others do
    local its = kept[others[other]]
    if its and its[2] > now and #written < MOST_PARTS then
      write_part(its[1], its[2], its[3], its[4])
    end
  end
  return count, before, table.concat(written), idle
end
