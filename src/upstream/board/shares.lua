-- Counts what the tenants of a quota have had, and returns what all have had that were asked for.
-- KEYS[1] is a hash; ARGV has the quota, by which its fields begin, how long to keep it and to
-- believe that somebody waits, both in milliseconds, who tells it, by whose count, the virtual
-- time, and the first who waits there: where it starts and how much it asks for, or two empty ones.
-- Then three for each tenant: its field, where what it had starts, and how much that is. Numbers of
-- another's count are not compared with those here.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local quota, keep, fresh, own = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local function whole(number)
  return string.format('%.0f', number)
end
local function get(name)
  return redis.call('HGET', KEYS[1], quota .. ' ' .. name)
end
local function set(name, value)
  redis.call('HSET', KEYS[1], quota .. ' ' .. name, value)
end
-- A number in which each one counts.
local function is_exact(number)
  return number and number >= 0 and number <= 2251799813685248
end
local frame, time = get('frame') or ARGV[5], tonumber(get('time') or 0)
local is_ours = frame == ARGV[5]
if is_ours and is_exact(time) then
  time = math.max(time, tonumber(ARGV[6]))
end
if not is_exact(time) or not string.match(frame, '^%x+$') or #frame > 16 then
  -- It is counted anew, by a count of its own.
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, #quota + 1) == quota .. ' ' then
      redis.call('HDEL', KEYS[1], field)
    end
  end
  frame, time, is_ours = string.format('%016x', now), 0, false
end
set('frame', frame)
set('time', whole(time))
-- Who waits elsewhere, and is furthest behind.
local waiting, least, size = {}, nil, ''
for who, start, asks, at in string.gmatch(get('waiting') or '', '(%x+) (%d+) (%d+) (%d+);') do
  if who ~= own and tonumber(at) <= now and now < at + fresh then
    waiting[#waiting + 1] = who .. ' ' .. start .. ' ' .. asks .. ' ' .. at .. ';'
    if not least or tonumber(start) < least then
      least, size = tonumber(start), asks
    end
  end
end
if is_ours and ARGV[7] ~= '' then
  waiting[#waiting + 1] = own .. ' ' .. ARGV[7] .. ' ' .. ARGV[8] .. ' ' .. whole(now) .. ';'
end
set('waiting', table.concat(waiting))
local reply = { frame, whole(time), least and whole(least) or '', size }
for i = 9, #ARGV, 3 do
  local since, length = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local start = tonumber(get(ARGV[i]) or -1)
  if not is_exact(start) then
    start = -1
  end
  if length > 0 then
    start = math.max(start, is_ours and since or time) + length
    set(ARGV[i], whole(start))
  end
  reply[#reply + 1] = start < 0 and '' or whole(start)
end
-- Those without a claim are forgotten when there are many, and all when that leaves too many. It is
-- looked for them no more than once in ten seconds, as it is a look at all.
local count = redis.call('HLEN', KEYS[1])
if count > 65536 then
  keep = 0
elseif count > 4096 and math.abs(now - (tonumber(get('swept') or 0) or 0)) > 10000 then
  set('swept', whole(now))
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local start = string.match(all[i], '^%x+ %x+$') and string.sub(all[i], 1, #quota) == quota
      and tonumber(all[i + 1])
    if start and start <= time then
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
redis.call('PEXPIRE', KEYS[1], keep)
return reply
