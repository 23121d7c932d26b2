-- What few calls need is made where it is needed: to make a function costs a call as much as to use
-- it, and it would be made for every call.
local present, began_at, lost, failure = now, nil, nil, nil
local function provide()
  -- Since when a limit is kept here, by its mark.
  began_at = function(mark)
    local began = tonumber(call('GET', mark))
    -- A mark of the future would have every missing key refused until then: the clock went back.
    if not began or not whole(began) or began > now then
      began = now
      call('SET', mark, now)
    end
    return began
  end

  -- A state that is missing although it may have been lost: as if all had been used when the limit,
  -- or the server, began.
  lost = function(decide, began, job, from)
    now, as, as_count = began, FILL, nil
    local _, _, state, idle = decide(nil, job, from)
    now, as = present, nil
    if state and idle > now then return state end
  end

  -- What became of a job that failed, if that is its own doing. What concerns all is the call's error.
  failure = function(problem)
    local text = type(problem) == 'table' and problem.err or tostring(problem)
    now, as, as_count = present, nil, nil
    if text:find('WRONGTYPE') or text:find('none of ours') then return -2 end
    if text:find('another time') then return -3 end
    return nil, redis.error_reply(text)
  end
end

-- A key lives until its state is as good as none, and a little longer, for clocks that are moved. Debt
-- may take longer than a number holds.
local function write(key, new, idle)
  local rest = max(0, min(MOST, idle - now))
  call('SET', key, new, 'PX', ceil(rest / 1000) + margin)
end
