-- Slots of keys, of which only so many may be held at a time: who holds some, and who waits in
-- line. KEYS has one name for each job. ARGV[1] is the instance that asks (eight bytes), ARGV[2]
-- begins the names of the channels by which instances are told that their turns have come (empty:
-- they are not), ARGV[i + 2] is job i: what is to be done, the slots of the key, how many of them
-- are wanted, for how many microseconds, how many may wait, and who asks.
--
-- A state is the number of holders and the instant at which it was written, then 32 bytes for each
-- of them and for each that waits, in the order of coming: the instance, a number of its own, the
-- slots, and the instant from which it is as if it had never come. All numbers are doubles. A key
-- lives as long as the last of them.
local call, unpack_, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local TRY, JOIN, KEEP, FREE, LOOK = 0, 1, 2, 3, 4
local HELD, WAITING, REFUSED, FULL, GONE, FAILED = 1, 2, 3, 4, 5, -2
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

-- The state of a key without those whose time is over.
local function read(key)
  local text = call('GET', key) or pack('<dd', 0, now)
  must(#text % 32 == 16)
  local holders, written = unpack_('<dd', text)
  must(whole(holders) and holders * 32 <= #text - 16 and whole(written))
  -- Where the clock has gone back, all ends have with it: else the dead would stay so much longer.
  local back = math.max(0, written - now)
  -- Of the line, those before the head have left it, and `waiting` are in it.
  local state = { holders = {}, line = {}, head = 1, waiting = 0, used = 0, known = {} }
  state.changed = back > 0
  for place = 17, #text, 32 do
    local weight, ends = unpack_('<dd', text, place + 16)
    must(whole(weight) and whole(ends))
    ends = ends - back
    if ends > now then
      local one = { id = sub(text, place, place + 15), weight = weight, ends = ends }
      one.holds = (place - 17) / 32 < holders
      local among = one.holds and state.holders or state.line
      if one.holds then
        state.used = state.used + weight
      else
        state.waiting = state.waiting + 1
      end
      among[#among + 1], state.known[one.id] = one, one
    end
  end
  return state
end

-- It is left where it stands: to close the gap would cost as much as the line is long.
local function remove(state, one)
  if one.holds then
    state.used = state.used - one.weight
  else
    state.waiting = state.waiting - 1
  end
  one.is_gone, state.known[one.id], state.changed = true, nil, true
end

-- Gives slots to those that wait, in their order, as far as they go.
local function hand_out(state, limit)
  while state.head <= #state.line do
    local one = state.line[state.head]
    if one.is_gone then
      -- Counted when it went.
    elseif one.weight > limit then
      -- There are fewer slots than when it came: it would keep all others waiting for ever.
      remove(state, one)
    elseif state.used + one.weight <= limit then
      one.holds, state.used = true, state.used + one.weight
      state.waiting, state.changed = state.waiting - 1, true
      state.holders[#state.holders + 1] = one
      local instance = sub(one.id, 1, 8)
      told[instance] = (told[instance] or '') .. sub(one.id, 9)
    else
      break
    end
    state.head = state.head + 1
  end
end

local function carry_out(state, job)
  local op, limit, weight, lease, most_waiting = unpack_('<ddddd', job)
  local id = sub(job, 41)
  -- Also what nobody has given back, but time.
  hand_out(state, limit)
  local one = state.known[id]
  if op == LOOK then return GONE end
  if op == FREE then
    if one then
      remove(state, one)
      hand_out(state, limit)
    end
    return GONE
  end
  if one then
    -- It is asked for again, because the answer was lost; or kept.
    one.ends, state.changed = math.max(one.ends, now + lease), true
    return one.holds and HELD or WAITING
  end
  if op == KEEP then return GONE end
  local is_free = state.waiting == 0 and state.used + weight <= limit
  if not is_free then
    if op == TRY or weight > limit then return REFUSED end
    if state.waiting >= most_waiting then return FULL end
  end
  one = { id = id, weight = weight, ends = now + lease, holds = is_free }
  local among = is_free and state.holders or state.line
  if is_free then
    state.used = state.used + weight
  else
    state.waiting = state.waiting + 1
  end
  among[#among + 1], state.known[id], state.changed = one, one, true
  return is_free and HELD or WAITING
end

local function write(key, state)
  local parts, last = {}, now
  local function add(among, from)
    for place = from, #among do
      local one = among[place]
      if not one.is_gone then
        parts[#parts + 1] = one.id .. pack('<dd', one.weight, one.ends)
        last = math.max(last, one.ends)
      end
    end
  end
  add(state.holders, 1)
  local holders = #parts
  add(state.line, state.head)
  if #parts == 0 then return call('DEL', key) end
  -- A little longer, for clocks that are moved.
  local lives = math.ceil((last - now) / 1000) + 1000
  call('SET', key, pack('<dd', holders, now) .. table.concat(parts), 'PX', lives)
end

local states, replies = {}, {}
for job = 1, #KEYS do
  local key = KEYS[job]
  local ok, state = true, states[key]
  if not state then ok, state = pcall(read, key) end
  if ok then
    states[key] = state
    local standing = carry_out(state, ARGV[job + 2])
    replies[job] = pack('<ddd', standing, state.used, state.waiting)
  else
    -- A value that is none of ours is its own job's error.
    local text = type(state) == 'table' and state.err or tostring(state)
    if not (text:find('WRONGTYPE') or text:find('none of ours')) then
      return redis.error_reply(text)
    end
    replies[job] = pack('<ddd', FAILED, 0, 0)
  end
end
for key, state in pairs(states) do
  if state.changed then write(key, state) end
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
