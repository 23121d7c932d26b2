-- Counts what the tenants of a quota have had, and returns what all have had that were asked for. KEYS[1] is
-- a hash; ARGV has the quota, by which its fields begin, how long to keep it and to believe that somebody
-- waits, both in milliseconds, who tells it, by whose count, the virtual time, and the first who waits there:
-- where it starts and how much it asks for, or two empty ones. Then three for each tenant: its field, where
-- what it had starts, and how much that is. Numbers of another's count are not compared with those here.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local quota, keep, fresh, own = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local function whole(number)
  return string.format('%.0f', number)
end
local frame = redis.call('HGET', KEYS[1], quota .. ' frame')
if not frame then
  frame = ARGV[5]
  redis.call('HSET', KEYS[1], quota .. ' frame', frame)
end
local is_ours = frame == ARGV[5]
local time = tonumber(redis.call('HGET', KEYS[1], quota .. ' time') or 0)
if is_ours and time < tonumber(ARGV[6]) then
  time = tonumber(ARGV[6])
  redis.call('HSET', KEYS[1], quota .. ' time', whole(time))
end
-- Who waits elsewhere, and is furthest behind.
local waiting, least, size = {}, nil, ''
for who, start, asks, at in string.gmatch(
  redis.call('HGET', KEYS[1], quota .. ' waiting') or '', '(%x+) (%d+) (%d+) (%d+);') do
  if who ~= own and now < at + fresh then
    waiting[#waiting + 1] = who .. ' ' .. start .. ' ' .. asks .. ' ' .. at .. ';'
    if not least or tonumber(start) < least then
      least, size = tonumber(start), asks
    end
  end
end
if is_ours and ARGV[7] ~= '' then
  waiting[#waiting + 1] = own .. ' ' .. ARGV[7] .. ' ' .. ARGV[8] .. ' ' .. whole(now) .. ';'
end
redis.call('HSET', KEYS[1], quota .. ' waiting', table.concat(waiting))
local reply = { frame, whole(time), least and whole(least) or '', size }
for i = 9, #ARGV, 3 do
  local field, since, length = quota .. ' ' .. ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local start = tonumber(redis.call('HGET', KEYS[1], field) or -1)
  if length > 0 then
    start = math.max(start, is_ours and since or time) + length
    redis.call('HSET', KEYS[1], field, whole(start))
  end
  reply[#reply + 1] = start < 0 and '' or whole(start)
end
-- Those without a claim are forgotten when there are many.
if redis.call('HLEN', KEYS[1]) > 4096 then
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
