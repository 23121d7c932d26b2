-- Merges what is posted into a board, and returns all of it. KEYS[1] is the board: a hash whose
-- fields begin with two numbers, by which two of them are compared and when it was told. ARGV has
-- how long to keep it, then four for each post: its field, those numbers, both as milliseconds from
-- now, and the rest of the field. Of one field that with the larger number stays, or else with the
-- larger rest. Of a quota's stops, which have fields of their own, those stay that may come to
-- hold: that are longer than those told after them, and were told after the quota was last resumed.
-- All that is new is said on the channel of the board's name. What was told later than now, before
-- the clock went back, keeps nothing from being told.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep, is_news = tonumber(ARGV[1]), false
-- The two numbers of a field and its rest, if it is there.
local function numbers(field)
  local held = redis.call('HGET', KEYS[1], field) or ''
  local order, told, rest = string.match(held, '^(%-?%d+) (%-?%d+) (.*)')
  return tonumber(order), tonumber(told), rest
end
-- All fields that are alike but for their ends. One that nobody can read is deleted.
local function alike(pattern, beginning)
  local fields = {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.match(field, pattern) == beginning then
      if numbers(field) then
        fields[#fields + 1] = field
      else
        redis.call('HDEL', KEYS[1], field)
      end
    end
  end
  return fields
end
-- As many are kept as an instance keeps: those with the largest numbers.
local function bound(pattern, beginning)
  local fields, oldest, least = alike(pattern, beginning), nil, nil
  for _, field in ipairs(fields) do
    local order = numbers(field)
    if not least or order < least then
      oldest, least = field, order
    end
  end
  if #fields > 16 then
    redis.call('HDEL', KEYS[1], oldest)
  end
end
local STOP, LIMIT = '^(stop .* )%x+$', '^(limit .+ )%S+ %S+ %S+ %S+ %S+$'
-- Whether a stop may come to hold beside the others. Those that may not beside it are deleted.
local function may_hold(field, stops, order, told)
  local resumed = numbers('resume ' .. string.sub(stops, 6, -2))
  if resumed and resumed <= now and told <= resumed
    or redis.call('HEXISTS', KEYS[1], field) == 1 then
    return false
  end
  for _, other in ipairs(alike(STOP, stops)) do
    local its_order, its_told = numbers(other)
    local is_same = its_order == order and its_told == told
    if is_same and field < other or not is_same and order <= its_order and told <= its_told then
      return false
    elseif its_order <= order and its_told <= told then
      redis.call('HDEL', KEYS[1], other)
    end
  end
  return true
end
-- Whether this is new beside what its field has.
local function is_later(field, order, rest)
  local held, _, held_rest = numbers(field)
  return not held or held < order or held == order and held_rest < rest or held > now
end
for i = 2, #ARGV, 4 do
  local field, order, rest = ARGV[i], 9007199254740991, ARGV[i + 3]
  if ARGV[i + 1] ~= 'never' then
    order = now + tonumber(ARGV[i + 1])
    keep = math.max(keep, order - now + tonumber(ARGV[1]))
  end
  local told = now + tonumber(ARGV[i + 2])
  local stops, is_new = string.match(field, STOP), nil
  if stops then
    is_new = may_hold(field, stops, order, told)
  else
    is_new = is_later(field, order, rest)
  end
  if is_new then
    redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f %s', order, told, rest))
    is_news = true
    local limit = string.match(field, LIMIT)
    if stops then
      bound(STOP, stops)
    elseif limit then
      bound(LIMIT, limit)
    elseif string.sub(field, 1, 7) == 'resume ' then
      for _, stop in ipairs(alike(STOP, 'stop ' .. string.sub(field, 8) .. ' ')) do
        local _, its_told = numbers(stop)
        if its_told <= order or its_told > now then
          redis.call('HDEL', KEYS[1], stop)
        end
      end
    end
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
