-- What few calls need is made where it is needed.
local began_at, lost = nil, nil
if #KEYS > jobs then
  -- Since when a limit is kept here, by its mark.
  began_at = function(mark)
    local text = redis.pcall('GET', mark)
    -- A mark of another type is as good as none.
    if type(text) == 'table' and not text.err:find('WRONGTYPE') then error(text) end
    local began = tonumber(text)
    -- A mark of the future would have every missing key refused until then: the clock went back.
    if not (began and began >= 0 and began <= now and began % 1 == 0) then
      began = now
      redis.call('SET', mark, now)
    end
    return began
  end

  -- A state that is missing although it may have been lost: as if all had been used when the limit,
  -- or the server, began.
  lost = function(decide, began, job, from)
    local FILL = 5
    local _, _, state, idle = decide(nil, job, from, began, FILL)
    if state and idle > now then return state end
  end
end

-- Decides on what is kept under `key`, and keeps what comes of it.
local function carry_out(decide, key, job, from, began, as)
  local state = redis.call('GET', key) or nil
  if not state and began then state = lost(decide, began, job, from) end
  local count, before, new, idle = decide(state, job, from, now, as)
  if new then
    -- A key lives until its state is as good as none, and a little longer, for clocks that are
    -- moved. Debt may take longer than a number holds.
    local rest = math.max(0, math.min(9007199254740991, idle - now))
    redis.call('SET', key, new, 'PX', math.ceil(rest / 1000) + margin)
  elseif idle and state then
    -- Another limit wrote the state, of which this one has more to come back: the key must not go before.
    local rest = math.max(0, math.min(9007199254740991, idle - now))
    redis.call('SET', key, state, 'PX', math.ceil(rest / 1000) + margin)
  end
  return count, before
end

-- The same, with what became of a job that fails by its own doing. What concerns all is the call's
-- error: nil, and that.
local function attempt(...)
  local ok, count, before = pcall(carry_out, ...)
  if ok then return count, before end
  local text = type(count) == 'table' and count.err or tostring(count)
  if text:find('WRONGTYPE') or text:find('none of ours') then return -2, '' end
  if text:find('another time') then return -3, '' end
  return nil, redis.error_reply(text)
end
