-- Fixed windows: see `FixedWindow` and `Windows`. The state is the window's start and end, and the
-- use in it.
local function fixed_window(key, job)
  local limit, first_hit, length, first, op, units, count, at = unpack_('<dddddddd', job)
  local pays = max(1, limit)

  -- The window that an instant lies in, if nothing has been used in it.
  local function at_(instant)
    if first_hit == 1 then return instant, instant + length end
    if instant < first then return 0, first end
    local start = instant - (instant - first) % length
    return start, start + length
  end

  local written = call('GET', key)
  local old_start, old_end, old_used = now, now, 0
  if written then old_start, old_end, old_used = unpack_('<ddd', written) end

  local start, end_ = at_(now)
  local used = old_used
  if old_used > 0 then
    local not_before = max(0, old_start - (old_end - old_start))
    if now >= old_end then
      -- Each window that has ended has paid off one limit.
      local ended
      if first_hit == 1 then
        ended = floor((now - old_end) / length) + 1
      else
        ended = max(0, ceil((start - old_end) / length)) + 1
      end
      used = max(0, old_used - pays * ended)
      if first_hit == 1 and used > 0 then
        start = now - (now - old_end) % length
        end_ = start + length
      end
    elseif now < not_before then
      -- The clock went back by more than a window.
      if first_hit == 0 then start, end_ = at_(end_) end
    elseif old_end == old_start + length then
      start, end_ = old_start, old_end
    elseif first_hit == 1 and now < old_start + length then
      start, end_ = old_start, old_start + length
    end
  end

  -- When so many units of the use have been paid off.
  local function paid_at(parts)
    local later = max(1, ceil(parts / pays)) - 1
    if later == 0 then return end_ end
    if first_hit == 1 then return end_ + length * later end
    local _, next_ = at_(end_)
    return next_ + length * (later - 1)
  end
  local function keep(parts)
    local idle = start
    if parts > 0 then idle = paid_at(parts) end
    put(key, pack('<ddd', start, end_, parts), idle)
  end

  if op == SETTLE then
    if count > 0 then
      keep(min(MOST, used + count))
    elseif written and at >= start and at < end_ then
      keep(max(0, used - units))
    end
    return pack('<d', 1)
  end

  count = granted(op, count, units, limit - used)
  local total = units * count
  local function reply(allowed, wait, parts)
    local reset = parts > 0 and until_(paid_at(parts)) or 0
    return pack('<dddddddd', allowed, max(0, limit - parts), reset, wait, count, start, end_, parts)
  end
  if total > limit then return reply(0, -1, used) end
  if used > limit - total then
    if op ~= PEEK and now < old_end and (start ~= old_start or end_ ~= old_end) then keep(used) end
    return reply(0, until_(paid_at(used - (limit - total))), used)
  end
  local after = used + total
  if total > 0 and op ~= PEEK then keep(after) end
  return reply(1, 0, after)
end
local decide = fixed_window
