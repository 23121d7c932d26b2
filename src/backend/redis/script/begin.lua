-- Decides on a batch of jobs, in their order. KEYS has one name for each job, ARGV[i + 2] the numbers
-- of job i. ARGV[1] is the time (microseconds since the epoch; empty: the server's), ARGV[2] says
-- whether the last name is that of the mark by which a lost key is known. All numbers are whole and
-- below 2^53, which a double holds exactly; they travel as doubles.
--
-- An algorithm is a function of a state (nil: there is none) and a job that begins at an offset. It
-- returns how many were granted (-1: it refuses), the state that it decided on, and where it has
-- changed the new state and the instant from which that is as good as none.
local call, unpack_, pack = redis.call, struct.unpack, struct.pack
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local MOST = 9007199254740991
-- To count is to look at how many could be taken, to fill is to take as much as the limit holds, to
-- lower is to take what is above the count.
local TAKE, TAKE_UP_TO, PEEK, SETTLE, COUNT, FILL, LOWER = 0, 1, 2, 3, 4, 5, 6
-- What is done instead of what the job says, and how many times.
local as, as_count = nil, nil

local now, margin = nil, 1000
if ARGV[1] == '' then
  -- Read once: it goes on while a script runs.
  local time = call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  -- Keys live by the server's time, which knows nothing of this one.
  now, margin = tonumber(ARGV[1]), 3600000
end

-- r * n / d for r < d, where r * n may be far above 2^53: the whole part and the rest. d is at most
-- 2^52.
local function fraction(r, n, d)
  local quotient, rest, bit = 0, 0, 1
  while bit * 2 <= n do bit = bit * 2 end
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if n >= bit then n, rest = n - bit, rest + r end
    while rest >= d do quotient, rest = quotient + 1, rest - d end
    bit = bit / 2
  end
  return quotient, rest
end

-- How many times `units` are granted of the `count` that are asked for, where `room` units are left;
-- below zero where there is debt.
local function granted(op, count, units, room)
  if op == LOWER then return max(0, room - count) end
  if op ~= TAKE_UP_TO and op ~= COUNT then return count end
  local fits = count
  if room < 0 then
    fits = 0
  elseif units > 0 then
    fits = floor(room / units)
  end
  return min(count, max(1, fits))
end

local function is_look(op)
  return op == PEEK or op == COUNT
end

-- A state that is none of ours fails its own job.
local function must(is_ours)
  if not is_ours then error('none of ours') end
end

-- All numbers of a state are. With another one a loop may have no end, and what is told cannot be
-- read: then the whole batch would fail.
local function whole(number)
  return number >= 0 and number <= MOST and number == floor(number)
end
