-- Looks for an answer, and takes the turn to ask where none will do.
--
-- KEYS  1 the answer, 2 the turn, if it may be taken
-- ARGV  1 the most bytes of an answer, 2 the oldest that will do in ms, 3 a token, 4 the turn's ms,
--       5 the last bytes of an answer that will not do, if there is one, 6 what it had left in ms
--
-- Without a token whatever answer there is will do, and no turn is taken. The reply is what the
-- answer has left in ms and the answer; or `ask`, `wait` or `alone`; or nothing.
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) == 'table' then
    if not string.find(size.err, 'WRONGTYPE', 1, true) then
        return size
    end
    -- Something that is no answer. One that is kept takes its place.
    size = 0
end
if size > 0 and size <= tonumber(ARGV[1]) then
    local left = redis.call('PTTL', KEYS[1])
    local will_do = left > 0
    if will_do and ARGV[3] then
        local head = redis.call('GETRANGE', KEYS[1], 0, 23)
        local keep = tonumber(string.sub(head, 1, 12), 16)
        local fresh = tonumber(string.sub(head, 13, 24), 16)
        -- A millisecond more: both ends are rounded.
        local age = (keep or 0) - left + 1
        will_do = keep and fresh and age < fresh and age <= tonumber(ARGV[2])
        -- One that took its place would have another end, or begin anew.
        if will_do and ARGV[5] and left <= tonumber(ARGV[6]) then
            will_do = redis.call('GETRANGE', KEYS[1], -#ARGV[5], -1) ~= ARGV[5]
        end
    end
    if will_do then
        return { left, redis.call('GET', KEYS[1]) }
    end
end
if not ARGV[3] then
    return {}
end
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) then
    return { 'ask' }
end
local holder = redis.pcall('GET', KEYS[2])
-- What never ends is nobody's turn.
if type(holder) == 'table' or holder == 'alone' or redis.call('PTTL', KEYS[2]) < 0 then
    return { 'alone' }
end
return { 'wait' }
