-- Merges what is posted into a board, and returns all of it. KEYS[1] is the board: a hash whose
-- fields begin with the number by which two of them are compared, the larger staying. ARGV has how
-- long to keep it, then four for each post: its field, that number and when it was told, both as
-- milliseconds from now, and the rest of the field; of two with one number the larger rest stays. A stop
-- that was told before its quota was resumed holds no more, however long it is: a shorter one takes its
-- place. All that is new is said on the channel of the board's name.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep, is_news = tonumber(ARGV[1]), false
-- The two numbers of a field and its rest, if it is there.
local function numbers(field)
  local held = redis.call('HGET', KEYS[1], field) or ''
  local order, told, rest = string.match(held, '^(%-?%d+) (%-?%d+) (.*)')
  return tonumber(order), tonumber(told), rest
end
-- Of the fields of one limit as many are kept as an instance keeps: those that were told last.
local function bound(field)
  local limit = string.match(field, '^(limit .+ )%S+ %S+ %S+ %S+ %S+$')
  if not limit then
    return
  end
  local oldest, least, count = nil, nil, 0
  for _, other in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.match(other, '^(limit .+ )%S+ %S+ %S+ %S+ %S+$') == limit then
      local order = numbers(other)
      count = count + 1
      if not least or order < least then
        oldest, least = other, order
      end
    end
  end
  if count > 16 then
    redis.call('HDEL', KEYS[1], oldest)
  end
end
for i = 2, #ARGV, 4 do
  local field, order, rest = ARGV[i], 9007199254740991, ARGV[i + 3]
  if ARGV[i + 1] ~= 'never' then
    order = now + tonumber(ARGV[i + 1])
    keep = math.max(keep, order - now + tonumber(ARGV[1]))
  end
  local told = now + tonumber(ARGV[i + 2])
  local held_order, held_told, held_rest = numbers(field)
  local resumed
  if string.sub(field, 1, 5) == 'stop ' then
    resumed = numbers('resume ' .. string.sub(field, 6))
  end
  if resumed and held_told and held_told <= resumed then
    held_order = nil
  end
  local is_over = resumed and told <= resumed
  local is_later = not held_order or held_order < order
    or (held_order == order and held_rest < rest)
  if not is_over and is_later then
    redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f %s', order, told, rest))
    is_news = true
    bound(field)
  end
end
if is_news then
  if redis.call('PTTL', KEYS[1]) < keep then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
  end
  redis.call('PUBLISH', KEYS[1], '')
end
local all = redis.call('HGETALL', KEYS[1])
table.insert(all, 1, string.format('%.0f', now))
return all
