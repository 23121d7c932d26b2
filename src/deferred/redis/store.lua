-- A store of deferred requests: the board of src/deferred/board.rs, on a server. KEYS[1] is what all
-- names begin with, a hash tag in it; KEYS[2] is for the cluster only (src/backend/redis/call.rs), and
-- neither is a key. ARGV[1] says what is done, ARGV[2] is the time (microseconds
-- since the epoch; empty: the server's), ARGV[3] and ARGV[4] are the most bytes of all and of an owner.
-- All numbers are whole and below 2^53.
--
--   total          what is counted, and the virtual time of the owners
--   job:ID         a request: its numbers, its bytes, its answer's
--   flow:OWNER     an owner: its start tag, weight, how long it is held back, what it has, and how many
--                  bytes of that have ended (kept)
--   ready:OWNER    its requests that are due, by rank, then turn
--   heads          owners whose first may be taken, by start tag
--   timers         what happens next to a request (r) or an owner (h), by time
--   waiting        requests that wait, by when they were accepted
--   key:KEY        the request of an idempotency key
local base, call, floor, max, min = KEYS[1], redis.call, math.floor, math.max, math.min
local HEADS, TIMERS, TOTAL = base .. 'heads', base .. 'timers', base .. 'total'
local ACCEPTED = base .. 'waiting'
local WAITING, RUNNING, DONE, FAILED, EXPIRED, CANCELED = 0, 1, 2, 3, 4, 5
local ATTEMPTS = 1
local SCALE, AROUND = 1048576, 256
-- Of the timers that are due, so many are looked at in one call: the server does nothing else then.
local MOST_TIMERS = 200
-- What is taken in one call ends with the request that makes this many bytes: a reply that is too long
-- for the time that a call has costs all in it an attempt.
local MOST_BYTES = 4194304
-- With so many bytes of answers there are enough, of all and of an owner.
local BOUND, OWNER_BOUND = tonumber(ARGV[3]), tonumber(ARGV[4])

local now = tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- All digits: Lua's own way would round.
local function text(number)
  return string.format('%.0f', number)
end

local total, before = {}, {}
local names = { 'time', 'weights', 'turn', 'bytes', 'kept', '0', '1', '2', '3', '4', '5' }
for place, value in ipairs(call('HMGET', TOTAL, unpack(names))) do
  total[names[place]] = tonumber(value) or 0
  before[names[place]] = total[names[place]]
end

local function add(name, number)
  name = tostring(name)
  total[name] = total[name] + number
end

-- What was counted is written once, at the end. A look at what time has not changed writes nothing.
local function finish(reply)
  local fields = {}
  for _, name in ipairs(names) do
    if total[name] ~= before[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = text(total[name])
    end
  end
  if fields[1] then call('HSET', TOTAL, unpack(fields)) end
  return reply
end

local function length(flow)
  return max(1, floor(SCALE / flow.weight))
end

-- A script that the server has no memory for fails with its first write that needs any, or not at
-- all: so it is never half done.

-- Changes an owner, and sees to it that its first is among the heads.
local function change_flow(owner, edit)
  local key = base .. 'flow:' .. owner
  local read = call('HMGET', key, 'start', 'weight', 'held', 'kept')
  if not read[1] then return end
  local flow = { start = tonumber(read[1]), weight = tonumber(read[2]), held = tonumber(read[3]) }
  if call('ZREM', HEADS, owner) == 1 then add('weights', -flow.weight) end
  edit(flow)
  call('HSET', key, 'start', text(flow.start), 'weight', text(flow.weight), 'held', text(flow.held))
  local has_enough = (tonumber(read[4]) or 0) >= OWNER_BOUND
  if flow.held == 0 and not has_enough and call('EXISTS', base .. 'ready:' .. owner) == 1 then
    call('ZADD', HEADS, text(flow.start), owner)
    add('weights', flow.weight)
  end
end

-- Counts the bytes of what has ended. An owner has enough with these, or no longer.
local function keep(owner, bytes)
  add('kept', bytes)
  local after = call('HINCRBY', base .. 'flow:' .. owner, 'kept', text(bytes))
  -- Whenever there is less, and not only where the bound is crossed: it may have been another before.
  if bytes < 0 or after >= OWNER_BOUND then change_flow(owner, function() end) end
end

local whole = { 's', 'f', 'a', 'm', 'n', 'z', 't', 'd', 'e', 'k', 'u', 'r', 'q', 'b' }

-- A request: s state, f failure, a attempts, m most attempts, n number of the last attempt, z the one
-- that was settled last, t submitted, d due, e expires, k kept for, u until, r rank, q turn, b bytes;
-- o owner, x idempotency key.
local function load(id)
  local read = call('HMGET', base .. 'job:' .. id, 'o', 'x', unpack(whole))
  if not read[1] then return nil end
  local job = { id = id, o = read[1], x = read[2] }
  for place, name in ipairs(whole) do job[name] = tonumber(read[place + 2]) end
  return job
end

local function place(job)
  return string.format('%016.0f', job.q) .. job.id
end

local function line_up(job)
  local ready = base .. 'ready:' .. job.o
  change_flow(job.o, function(flow)
    if call('EXISTS', ready) == 0 then flow.start = max(flow.start, total.time) end
    call('ZADD', ready, text(job.r), place(job))
  end)
  call('ZADD', TIMERS, text(job.e), 'r' .. job.id)
end

local function settle_in(job)
  if job.s == WAITING and job.d <= now then return line_up(job) end
  local timer = job.u
  if job.s == WAITING then timer = min(job.d, job.e) end
  call('ZADD', TIMERS, text(timer), 'r' .. job.id)
end

-- Changes a request, and all that follows from it. One that was taken is in no line any more.
local function change(job, edit, is_taken)
  if job.s == WAITING and not is_taken then
    change_flow(job.o, function() call('ZREM', base .. 'ready:' .. job.o, place(job)) end)
  end
  local bytes, state = job.b, job.s
  add(job.s, -1)
  edit()
  add(job.s, 1)
  if job.s == WAITING then
    call('ZADD', ACCEPTED, text(job.t), job.id)
  elseif state == WAITING then
    call('ZREM', ACCEPTED, job.id)
  end
  add('bytes', job.b - bytes)
  if job.b ~= bytes then
    call('HINCRBY', base .. 'flow:' .. job.o, 'bytes', text(job.b - bytes))
  end
  if state < DONE and job.s >= DONE then keep(job.o, job.b) end
  local fields = {}
  for _, name in ipairs({ 's', 'f', 'a', 'n', 'z', 'd', 'u', 'b' }) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(job[name])
  end
  call('HSET', base .. 'job:' .. job.id, unpack(fields))
  settle_in(job)
end

local function finish_job(job, state, failure, size)
  -- What travels with it stays.
  local label = call('HSTRLEN', base .. 'job:' .. job.id, 'l')
  change(job, function()
    job.s, job.f, job.u, job.b = state, failure, now + job.k, AROUND + label + size
  end)
  call('HDEL', base .. 'job:' .. job.id, 'req')
end

local function forget(job)
  call('DEL', base .. 'job:' .. job.id)
  call('ZREM', TIMERS, 'r' .. job.id)
  if job.x ~= '' then call('DEL', base .. 'key:' .. job.x) end
  add(job.s, -1)
  add('bytes', -job.b)
  local flow = base .. 'flow:' .. job.o
  keep(job.o, -job.b)
  call('HINCRBY', flow, 'bytes', text(-job.b))
  if call('HINCRBY', flow, 'requests', -1) <= 0 then
    call('DEL', flow)
    call('ZREM', TIMERS, 'h' .. job.o)
  end
end

local function fire(job)
  if job.s == WAITING then
    if job.e <= now then return finish_job(job, EXPIRED, 0, 0) end
    return line_up(job)
  end
  if job.s ~= RUNNING then return forget(job) end
  if job.a >= job.m then return finish_job(job, FAILED, ATTEMPTS, 0) end
  if job.e <= now then return finish_job(job, EXPIRED, 0, 0) end
  change(job, function() job.s, job.d = WAITING, now end)
end

local function advance()
  local due = call('ZRANGEBYSCORE', TIMERS, '-inf', text(now), 'LIMIT', 0, MOST_TIMERS)
  for _, member in ipairs(due) do
    call('ZREM', TIMERS, member)
    local name = member:sub(2)
    if member:sub(1, 1) == 'h' then
      change_flow(name, function(flow) flow.held = 0 end)
    else
      local job = load(name)
      if job then fire(job) end
    end
  end
end

local function of_owner(owner, id)
  local job = load(id)
  if job and job.o == owner then return job end
end

-- Whether this attempt is the request's last. Nobody has taken it since, so it is the holder's still,
-- whether its lease is over or not.
local function is_running(job, number)
  if job and job.n == number and job.z ~= number and (job.s == RUNNING or job.s == WAITING) then
    -- It needs no memory, and what comes after it may be written though there is none: an answer in
    -- hand is not given up.
    call('ZREM', TIMERS, 'r' .. job.id)
    return true
  end
end

local steps = {}

function steps.submit(id, owner, size, fingerprint, request, ahead, weight, delay, expires, keep, most,
                      key, label, requests, owner_requests)
  if call('EXISTS', base .. 'job:' .. id) == 1 then return { 'new' } end
  local known = key ~= '' and call('GET', base .. 'key:' .. key)
  if known then
    if call('HGET', base .. 'job:' .. known, 'p') == fingerprint then return { 'known', known } end
    return { 'conflict' }
  end
  size = tonumber(size) + AROUND
  local flow = base .. 'flow:' .. owner
  local has = call('HMGET', flow, 'requests', 'bytes', 'weight')
  if (tonumber(has[1]) or 0) >= tonumber(owner_requests)
    or (tonumber(has[2]) or 0) + size > OWNER_BOUND then
    return { 'owner_full' }
  end
  local count = 0
  for state = WAITING, CANCELED do count = count + total[tostring(state)] end
  if count >= tonumber(requests) or total.bytes + size > BOUND then return { 'full' } end

  add('turn', 1)
  local job = { id = id, o = owner, s = WAITING, d = now + tonumber(delay), r = now - tonumber(ahead),
    e = now + tonumber(expires), q = total.turn, b = size }
  call('HSET', base .. 'job:' .. id, 'o', owner, 'x', key, 's', WAITING, 'f', 0, 'a', 0, 'm', most,
    'n', 0, 'z', 0, 't', text(now), 'd', text(job.d), 'e', text(job.e), 'k', keep, 'u', 0,
    'r', text(job.r), 'q', text(job.q), 'b', text(size), 'p', fingerprint, 'l', label, 'req', request)
  if key ~= '' then call('SET', base .. 'key:' .. key, id) end
  add(WAITING, 1)
  add('bytes', size)
  call('ZADD', ACCEPTED, text(now), id)
  if not has[1] then call('HSET', flow, 'start', 0, 'weight', weight, 'held', 0) end
  call('HINCRBY', flow, 'requests', 1)
  call('HINCRBY', flow, 'bytes', text(size))
  -- Who lines up at once is among the heads by that.
  if has[1] and has[3] ~= weight then
    change_flow(owner, function(of) of.weight = tonumber(weight) end)
  end
  settle_in(job)
  return { 'new' }
end

function steps.take(most, lease)
  local reply, bytes = { '' }, 0
  for _ = 1, tonumber(most) do
    if bytes >= MOST_BYTES or total.kept >= BOUND then break end
    local head = call('ZRANGE', HEADS, 0, 0, 'WITHSCORES')
    if not head[1] then break end
    local owner, start = head[1], tonumber(head[2])
    total.time = max(total.time + floor(SCALE / max(1, total.weights)), start)
    local first
    change_flow(owner, function(flow)
      first = call('ZPOPMIN', base .. 'ready:' .. owner)[1]
      flow.start = flow.start + length(flow)
    end)
    local job = load(first:sub(17))
    if job.e <= now then
      -- There were more timers than are looked at in one call.
      finish_job(job, EXPIRED, 0, 0)
    else
      change(job, function()
        job.s, job.a, job.n, job.u = RUNNING, job.a + 1, job.n + 1, now + tonumber(lease)
      end, true)
      bytes = bytes + job.b
      local kept = call('HMGET', base .. 'job:' .. job.id, 'l', 'req')
      reply[#reply + 1] =
        { job.id, owner, text(job.n), text(job.a), text(job.m), text(max(0, now - job.t)), kept[1], kept[2] }
    end
  end
  local next = call('ZRANGE', TIMERS, 0, 0, 'WITHSCORES')[2]
  if next then reply[1] = text(max(0, tonumber(next) - now)) end
  return reply
end

function steps.renew(id, number, lease)
  local job = load(id)
  if not is_running(job, tonumber(number)) then return { 'lost' } end
  change(job, function() job.s, job.u = RUNNING, now + tonumber(lease) end)
  return { 'ours' }
end

function steps.settle(id, number, ending, after, failure, response)
  number = tonumber(number)
  local job = load(id)
  if job and job.z == number then return { 'ours' } end
  if not is_running(job, number) then return { 'lost' } end
  job.z = number
  if ending == 'retry' then
    change(job, function() job.s, job.d = WAITING, now + tonumber(after) end)
  elseif ending == 'refused' then
    local till = now + tonumber(after)
    change_flow(job.o, function(flow)
      flow.start = max(0, flow.start - length(flow))
      if flow.held < till then
        flow.held = till
        call('ZADD', TIMERS, text(till), 'h' .. job.o)
      end
    end)
    change(job, function() job.s, job.a, job.d = WAITING, job.a - 1, now end)
  else
    local state = ending == 'done' and DONE or FAILED
    finish_job(job, state, tonumber(failure), #response)
    if response ~= '' then call('HSET', base .. 'job:' .. id, 'res', response) end
  end
  return { 'ours' }
end

function steps.result(owner, id, with_response)
  local job = of_owner(owner, id)
  if not job then return {} end
  local next = job.s == WAITING and job.d or job.u
  local response = with_response ~= '' and call('HGET', base .. 'job:' .. id, 'res')
  return { text(job.s), text(job.f), text(job.a), text(job.t), text(job.e), text(next), response or '' }
end

function steps.cancel(owner, id)
  local job = of_owner(owner, id)
  if not job then return {} end
  if job.s == WAITING or job.s == RUNNING then
    finish_job(job, CANCELED, 0, 0)
    return { 'canceled' }
  end
  forget(job)
  return { 'forgotten' }
end

function steps.counts()
  local first = call('ZRANGE', ACCEPTED, 0, 0, 'WITHSCORES')[2]
  local reply = { text(total.bytes), first and text(max(0, now - tonumber(first))) or '' }
  for state = WAITING, CANCELED do reply[#reply + 1] = text(total[tostring(state)]) end
  return reply
end

-- Who has a request in hand comes before the end of its lease.
if ARGV[1] ~= 'settle' and ARGV[1] ~= 'renew' then advance() end
return finish(steps[ARGV[1]](unpack(ARGV, 5)))
