-- Two-window counters: see `SlidingCounter`. The state is the present window, its use, that of the
-- one before it, and the length of both.
local function sliding_counter(state, job, from, now, as, as_count)
  local PEEK, SETTLE, COUNT, FILL, TURN, MOST = 2, 3, 4, 5, 7, 9007199254740991
  local op, units, count, at, limit, length = struct.unpack('<dddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT or op == TURN
  local present, into = math.floor(now / length), now % length
  local window, current, previous = present, 0, 0
  local before, moved = state, false
  if state then
    must(#state == 32)
    local its_window, its_current, its_previous, its_length = struct.unpack('<dddd', state)
    must(whole(its_window) and whole(its_current) and whole(its_previous))
    must(whole(its_length) and its_length > 0)
    if its_current == 0 and its_previous == 0 then
      -- It is as good as none.
      window = present
    elseif its_length ~= length or its_window > present + 1 then
      -- Another length, or a clock that went back for good: what counts, counts from now.
      local windows = its_current > 0 and 2 or its_previous > 0 and 1 or 0
      if (its_window + windows) * its_length > now then
        current = math.min(MOST, its_previous + its_current)
      end
      moved = true
    elseif its_window > present then
      -- The clock went back across the border: the window has just begun.
      window, current, previous, into = its_window, its_current, its_previous, 0
    elseif its_window == present then
      current, previous = its_current, its_previous
    elseif its_window + 1 == present then
      previous = its_current
    end
  else
    before = struct.pack('<dddd', present, 0, 0, length)
  end

  local function changed(count_)
    local windows = current > 0 and 2 or previous > 0 and 1 or 0
    local new = struct.pack('<dddd', window, current, previous, length)
    return count_, before, new, (window + windows) * length
  end
  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    before = ''
    if count > 0 then
      current = math.min(MOST, current + count)
      return changed(0)
    end
    local charged = math.floor(at / length)
    if units == 0 then return 0, before end
    if state and charged == window then
      current = math.max(0, current - units)
      return changed(0)
    elseif state and charged + 1 == window then
      previous = math.max(0, previous - units)
      return changed(0)
    end
    return 0, before
  end

  -- What the period still covers of the window before, rounded up.
  local covered = previous
  if into > 0 and previous > 0 then
    local quotient, rest = fraction(length - into, previous, length)
    covered = quotient + (rest > 0 and 1 or 0)
  end
  -- A sum above 2^53 may be off by one, and is above every limit.
  local room = limit - covered - current
  count = granted(op, count, units, room)
  local total = units * count
  if total > room then
    if moved and not is_look then return changed(-1) end
    return -1, before
  end
  -- An estimate promises nothing: it is now, or not at all.
  if op == TURN then return now, before end
  if total == 0 or is_look then return count, before end
  current = current + total
  return changed(count)
end
