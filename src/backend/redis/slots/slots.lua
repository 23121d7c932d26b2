-- Slots of keys, of which only so many may be held at a time: who holds some, and who waits in line.
-- KEYS has one name for each job. ARGV[1] is the instance that asks (eight bytes), ARGV[2] begins the
-- names of the channels by which instances are told that their turns have come (empty: they are not),
-- ARGV[i + 2] is job i: what is to be done, the slots of the key, those of all keys, how many of them are
-- wanted, for how many microseconds, how many may wait for the key and for all, who asks, and for whom.
--
-- Where all keys together have only so many, they are in one state, and sixteen bytes say whose each of
-- them is. Where they have not, a key has a state of its own, and there is nothing to say.
--
-- A state is the number of holders and the instant at which it was written, then 32 bytes for each of them
-- and for each that waits, in the order of coming: the instance, a number of its own, the slots, and the
-- instant from which it is as if it had never come; and then whose it is. All numbers are doubles. A
-- state lives as long as the last of them.
local call, unpack_, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local TRY, JOIN, KEEP, FREE, LOOK, REENTER = 0, 1, 2, 3, 4, 5
local HELD, WAITING, REFUSED, FULL, GONE, REFUSED_BY_ALL, FULL_OF_ALL, FAILED = 1, 2, 3, 4, 5, 6, 7, -2
local MOST = 9007199254740991

-- Read once: it goes on while a script runs.
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local own = ARGV[1]
-- The numbers of those that have got slots by the end of others, by instance.
local told = {}

local function must(is_ours)
  if not is_ours then error('none of ours') end
end

local function whole(number)
  return number >= 0 and number <= MOST and number == math.floor(number)
end

-- What the holders of a key have and how many wait for it.
local function of_key(state, key)
  local counts = state.keys[key]
  if not counts then
    counts = { used = 0, waiting = 0 }
    state.keys[key] = counts
  end
  return counts
end

local function count(state, one, slots, waiting)
  local counts = of_key(state, one.key)
  counts.used, counts.waiting = counts.used + slots, counts.waiting + waiting
  state.used, state.waiting = state.used + slots, state.waiting + waiting
end

-- The state of this name without those whose time is over. So many bytes say whose one is.
local function read(name, wide)
  local text = call('GET', name) or pack('<dd', 0, now)
  local width = 32 + wide
  must(#text >= 16 and (#text - 16) % width == 0)
  local holders, written = unpack_('<dd', text)
  must(whole(holders) and holders * width <= #text - 16 and whole(written))
  -- Where the clock has gone back, all ends have with it: else the dead would stay so much longer.
  local back = math.max(0, written - now)
  -- Of the line, those before the head have left it. What has come back is not handed out yet.
  local state = { holders = {}, line = {}, head = 1, waiting = 0, used = 0, known = {}, keys = {} }
  state.changed, state.is_stale, state.is_wanted = back > 0, true, false
  for place = 17, #text, width do
    local weight, ends = unpack_('<dd', text, place + 16)
    must(whole(weight) and whole(ends))
    ends = ends - back
    if ends > now then
      local one = { id = sub(text, place, place + 15), weight = weight, ends = ends }
      one.key = sub(text, place + 32, place + width - 1)
      one.holds = (place - 17) / width < holders
      local among = one.holds and state.holders or state.line
      among[#among + 1], state.known[one.id] = one, one
      if one.holds then count(state, one, weight, 0) else count(state, one, 0, 1) end
    end
  end
  return state
end

-- It is left where it stands: to close the gap would cost as much as the line is long.
local function remove(state, one)
  if one.holds then count(state, one, -one.weight, 0) else count(state, one, 0, -1) end
  one.is_gone, state.known[one.id], state.changed = true, nil, true
end

-- Gives slots to those that wait, in their order. Nobody passes another of its key, nor one of any key for
-- whom its key has slots, and only all together have not.
local function hand_out(state, limit, total)
  if not state.is_stale and state.limit == limit and state.total == total then return end
  state.is_stale, state.limit, state.total = false, limit, total
  -- Whether somebody stands before the slots of all.
  state.is_wanted = false
  local closed = {}
  for place = state.head, #state.line do
    local one = state.line[place]
    if one.is_gone or one.holds or closed[one.key] then
      -- Counted when it went, or not to be looked at.
    elseif one.weight > limit or one.weight > total then
      -- There are fewer slots than when it came: it would keep all others waiting for ever.
      remove(state, one)
    elseif of_key(state, one.key).used + one.weight > limit then
      -- Those behind it wait too: all of them, where this key is all that there is.
      if one.key == '' then break end
      closed[one.key] = true
    elseif state.used + one.weight > total then
      state.is_wanted = true
      break
    else
      count(state, one, one.weight, -1)
      one.holds, state.changed = true, true
      state.holders[#state.holders + 1] = one
      local instance = sub(one.id, 1, 8)
      told[instance] = (told[instance] or '') .. sub(one.id, 9)
    end
  end
  local line = state.line
  while state.head <= #line and (line[state.head].holds or line[state.head].is_gone) do
    state.head = state.head + 1
  end
end

-- Gives who asks slots, or a place.
local function enter(state, job, holds)
  local _, _, _, weight, lease = unpack_('<ddddd', job)
  local one = { id = sub(job, 57, 72), key = sub(job, 73), weight = weight, holds = holds }
  one.ends = now + lease
  local among = holds and state.holders or state.line
  if holds then count(state, one, weight, 0) else count(state, one, 0, 1) end
  among[#among + 1], state.known[one.id], state.changed = one, one, true
  return holds and HELD or WAITING
end

-- How it stands then, and what its key has.
local function carry_out(state, job)
  local op, limit, total, weight, lease, most_waiting, most_of_all = unpack_('<ddddddd', job)
  local id, key = sub(job, 57, 72), sub(job, 73)
  local counts = of_key(state, key)
  if op == FREE then
    -- What many give back in one call is handed out once, before the next that wants something or at the
    -- end: the whole line may have to be looked at for it.
    local one = state.known[id]
    if one then
      remove(state, one)
      state.is_stale = true
    end
    return GONE, counts
  end
  -- Also what nobody has given back, but time.
  hand_out(state, limit, total)
  local one = state.known[id]
  if op == LOOK then return GONE, counts end
  if one then
    -- It is asked for again, because the answer was lost; or kept.
    one.ends, state.changed = math.max(one.ends, now + lease), true
    return one.holds and HELD or WAITING, counts
  end
  if op == KEEP then return GONE, counts end
  if op == REENTER then
    -- It came before all that wait. So it has its slots back if they are there, whoever wants them.
    if counts.used + weight > limit then return REFUSED, counts end
    if state.used + weight > total then return REFUSED_BY_ALL, counts end
    return enter(state, job, true), counts
  end
  local fits_key = counts.waiting == 0 and counts.used + weight <= limit
  local is_free = fits_key and not state.is_wanted and state.used + weight <= total
  if not is_free then
    if weight > limit then return REFUSED, counts end
    if weight > total then return REFUSED_BY_ALL, counts end
    if op == TRY then return fits_key and REFUSED_BY_ALL or REFUSED, counts end
    if counts.waiting >= most_waiting then return FULL, counts end
    if state.waiting >= most_of_all then return FULL_OF_ALL, counts end
    state.is_wanted = state.is_wanted or fits_key
  end
  return enter(state, job, is_free), counts
end

local function write(name, state)
  local parts, last = {}, now
  local function add(among, from, holding)
    for place = from, #among do
      local one = among[place]
      if not one.is_gone and one.holds == holding then
        parts[#parts + 1] = one.id .. pack('<dd', one.weight, one.ends) .. one.key
        last = math.max(last, one.ends)
      end
    end
  end
  add(state.holders, 1, true)
  local holders = #parts
  add(state.line, state.head, false)
  if #parts == 0 then return call('DEL', name) end
  -- A little longer, for clocks that are moved.
  local lives = math.ceil((last - now) / 1000) + 1000
  call('SET', name, pack('<dd', holders, now) .. table.concat(parts), 'PX', lives)
end

local states, replies = {}, {}
for job = 1, #KEYS do
  local name, asked = KEYS[job], ARGV[job + 2]
  local ok, state = true, states[name]
  if not state then ok, state = pcall(read, name, #asked - 72) end
  if ok then
    states[name], state.last = state, asked
    local standing, counts = carry_out(state, asked)
    replies[job] =
      pack('<ddddd', standing, counts.used, counts.waiting, state.used, state.waiting)
  else
    -- A value that is none of ours is its own job's error.
    local text = type(state) == 'table' and state.err or tostring(state)
    if not (text:find('WRONGTYPE') or text:find('none of ours')) then
      return redis.error_reply(text)
    end
    replies[job] = pack('<ddddd', FAILED, 0, 0, 0, 0)
  end
end
for name, state in pairs(states) do
  local _, limit, total = unpack_('<ddd', state.last)
  hand_out(state, limit, total)
  if state.changed then write(name, state) end
end
for instance, numbers in pairs(told) do
  if instance ~= own and ARGV[2] ~= '' then
    local name = ARGV[2] .. instance:gsub('.', function(byte)
      return string.format('%02x', byte:byte())
    end)
    -- Not permitted, perhaps: then they find out by themselves.
    redis.pcall('PUBLISH', name, numbers)
  end
end
return table.concat(replies) .. (told[own] or '')
