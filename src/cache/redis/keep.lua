-- Keeps an answer.
--
-- KEYS  1 the answer
-- ARGV  1 the answer, 2 for how many ms
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
