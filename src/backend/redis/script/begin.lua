-- Decides on a batch of jobs, in their order. KEYS has one name for each job, ARGV[i] the numbers
-- of job i; what else there is of them says what is unusual. An argument behind the jobs, which is
-- shorter than any of them, is the time (microseconds since the epoch); mostly it is the server's.
-- A name behind those of the jobs is that of the mark by which a lost key is known. All numbers are
-- whole and below 2^53, which a double holds exactly; they travel as doubles.
--
-- An algorithm is a function of a state (nil: there is none), a job that begins at an offset, the
-- time, and what is done instead of what the job says, and how many times (nil: as it says). It
-- returns how many were granted (-1: it refuses), the state that it decided on ('' for a correction: what
-- comes behind it in a batch is read at once behind its count), and where it has changed the new state and
-- the instant from which that is as good as none. Where a bucket refuses by a
-- state of another limit it is that instant for the state as it is.
--
-- What is to be done is to take (0), to take as much as there is (1), to look (2), to settle a
-- charge (3); to look at how much could be taken (4), to take all that the limit holds (5), to
-- take what is above the count (6), and to tell when it would start, whatever is ahead (7, which returns that in
-- the place of a count). What is taken starts at the instant that comes last, or later (nil: now).
--
-- Most calls carry one job. To make a function costs as much as to use it, and to make one that
-- uses another's variable costs that again: so there are few, and what they use is mostly an
-- argument, or a number that stands where it is used.
local jobs, now, margin = #ARGV, nil, 1000
if #ARGV[jobs] < 32 then
  -- Keys live by the server's time, which knows nothing of this one.
  now, margin, jobs = tonumber(ARGV[jobs]), 3600000, jobs - 1
else
  -- Read once: it goes on while a script runs.
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
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

-- How many times `units` are granted of the `count` that are asked for, where `room` units are
-- left; below zero where there is debt.
local function granted(op, count, units, room)
  local TAKE_UP_TO, COUNT, LOWER = 1, 4, 6
  if op == LOWER then return math.max(0, room - count) end
  if op ~= TAKE_UP_TO and op ~= COUNT then return count end
  local fits = count
  if room < 0 then
    fits = 0
  elseif units > 0 then
    fits = math.floor(room / units)
  end
  return math.min(count, math.max(1, fits))
end
