-- What the holder of a turn does with it.
--
-- KEYS  1 the turn
-- ARGV  1 the token, 2 `renew`, `free` or `alone`, 3 for how many ms
--
-- The reply is 1 if the turn was the token's.
local holder = redis.pcall('GET', KEYS[1])
if holder ~= ARGV[1] then
    return 0
end
if ARGV[2] == 'renew' then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif ARGV[2] == 'alone' then
    redis.call('SET', KEYS[1], 'alone', 'PX', ARGV[3])
else
    redis.call('DEL', KEYS[1])
end
return 1
