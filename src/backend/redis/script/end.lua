-- A state that is missing although it may have been lost: as if all had been used when the limit,
-- or the server, began.
local jobs, began = #KEYS, nil
if ARGV[2] ~= '' then
  jobs = jobs - 1
  began = tonumber(call('GET', KEYS[#KEYS]))
  -- A mark of the future would have every missing key refused until then: the clock went back.
  if not began or not whole(began) or began > now then
    began = now
    call('SET', KEYS[#KEYS], now)
  end
end
local present = now
local function lost(job)
  now, as, as_count = began, FILL, nil
  local _, _, state, idle = decide(nil, job, 1)
  now, as = present, nil
  if state and idle > now then return state end
end

local function carry_out(key, job)
  local state = call('GET', key) or nil
  if not state and began then state = lost(job) end
  local count, before, new, idle = decide(state, job, 1)
  if new then
    -- A key lives until its state is as good as none, and a little longer, for clocks that are
    -- moved. Debt may take longer than a number holds.
    local rest = max(0, min(MOST, idle - now))
    call('SET', key, new, 'PX', ceil(rest / 1000) + margin)
  end
  return count, before
end

local replies = { pack('<d', now) }
for job = 1, jobs do
  local ok, count, before = pcall(carry_out, KEYS[job], ARGV[job + 2])
  if not ok then
    -- Some errors are the job's own. What concerns them all is the call's error.
    local text = type(count) == 'table' and count.err or tostring(count)
    now, as, as_count = present, nil, nil
    if text:find('WRONGTYPE') or text:find('none of ours') then
      count, before = -2, ''
    elseif text:find('another time') then
      count, before = -3, ''
    else
      return redis.error_reply(text)
    end
  end
  replies[job * 2], replies[job * 2 + 1] = pack('<d', count), before
end
return table.concat(replies)
