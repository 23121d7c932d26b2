-- Decides on a batch of jobs, in their order. KEYS has one name for each job, ARGV[1] the time
-- (microseconds since the epoch; empty: the server's), ARGV[i + 1] the numbers of job i. All
-- numbers are whole and below 2^53, which a double holds exactly; they travel as doubles.
local call, unpack_, pack = redis.call, struct.unpack, struct.pack
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local MOST = 9007199254740991
local TAKE, TAKE_UP_TO, PEEK, SETTLE = 0, 1, 2, 3

local now, margin = nil, 1000
if ARGV[1] == '' then
  -- Read once: it goes on while a script runs.
  local time = call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  -- Keys live by the server's time, which knows nothing of this one.
  now, margin = tonumber(ARGV[1]), 3600000
end

-- ceil(r * n / d) for r < d, where r * n may be far above 2^53.
local function share(r, n, d)
  local quotient, rest, bit = 0, 0, 1
  while bit * 2 <= n do bit = bit * 2 end
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if n >= bit then n, rest = n - bit, rest + r end
    while rest >= d do quotient, rest = quotient + 1, rest - d end
    bit = bit / 2
  end
  return rest > 0 and quotient + 1 or quotient
end

-- used units of `old` parts each, in parts of `new`, rounded up.
local function converted(used, new, old)
  if used == 0 or new == old then return used end
  local whole = floor(used / old)
  if whole > MOST / new then return MOST end
  return min(MOST, whole * new + share(used - whole * old, new, old))
end

-- The microseconds until an instant, none if it is past. Debt may take longer than a number holds.
local function until_(instant)
  return max(0, min(MOST, instant - now))
end

-- How many times `units` are granted of the `count` that are asked for, where `room` units are left;
-- below zero where there is debt.
local function granted(op, count, units, room)
  if op ~= TAKE_UP_TO then return count end
  local fits = count
  if room < 0 then
    fits = 0
  elseif units > 0 then
    fits = floor(room / units)
  end
  return min(count, max(1, fits))
end

-- A key lives until its state is as good as none, and a little longer, for clocks that are moved.
local function put(key, state, idle)
  call('SET', key, state, 'PX', string.format('%.0f', ceil(until_(idle) / 1000) + margin))
end
