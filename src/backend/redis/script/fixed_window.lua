-- Fixed windows: see `FixedWindow` and `Windows`. The state is the window's start and end, and the
-- use in it. A calendar comes as the borders around the present. Turns of windows that begin within the
-- time that is `ahead` are given out: what is used of those is in the use too, as debt is. Behind it is then
-- what each window holds by which that is so: another limit keeps the window that the last turn is in.
local function fixed_window(state, job, from, now, as, as_count, not_before)
  local TAKE, TAKE_UP_TO, PEEK, SETTLE = 0, 1, 2, 3
  local COUNT, FILL, LOWER, TURN, MOST = 4, 5, 6, 7, 9007199254740991
  local ALIGNED, FIRST_HIT, CALENDAR, BORDERS = 0, 1, 2, 4
  local LONGEST = 2678400000000 + 7200000000
  local op, units, count, at, limit, kind, length, first, ahead =
    struct.unpack('<ddddddddd', job, from)
  op, count = as or op, as_count or count
  local is_look = op == PEEK or op == COUNT or op == TURN
  -- What takes nothing waits for nobody.
  if not not_before or units * count == 0 then not_before = now end
  local pays = math.max(1, limit)
  local borders = nil
  if kind == CALENDAR then borders = { struct.unpack('<dddd', job, from + 72) } end

  -- The window that an instant lies in, if nothing has been used in it.
  local function at_(instant)
    if kind == FIRST_HIT then return instant, instant + length end
    if kind == ALIGNED then
      if instant < first then return 0, first end
      local start = instant - (instant - first) % length
      return start, start + length
    end
    -- What was used up before the borders was so in a window that has ended.
    if as == FILL and instant < borders[1] then return instant, borders[1] end
    for place = 1, BORDERS - 1 do
      if instant >= borders[place] and instant < borders[place + 1] then
        return borders[place], borders[place + 1]
      end
    end
    -- Who sent the borders has another time than this.
    error('another time')
  end

  local old_start, old_end, old_used, turns = now, now, 0, 0
  if state then
    must(#state == 24 or #state == 32)
    old_start, old_end, old_used = struct.unpack('<ddd', state)
    must(whole(old_start) and whole(old_end) and whole(old_used) and old_start <= old_end)
    if #state == 32 then
      turns = struct.unpack('<d', state, 25)
      must(whole(turns) and turns > 0)
      if old_used <= turns then
        turns = 0
      elseif turns ~= pays then
        local earlier = math.floor((old_used - 1) / turns)
        old_used = math.min(MOST, earlier * pays + old_used - earlier * turns)
      end
    end
  end

  local start, end_ = at_(now)
  local used = old_used
  if old_used > 0 then
    if now >= old_end then
      -- Each window that has ended has paid off one limit.
      local ended
      if kind == FIRST_HIT then
        ended = math.floor((now - old_end) / length) + 1
      elseif kind == ALIGNED then
        ended = math.max(0, math.ceil((start - old_end) / length)) + 1
      else
        -- And those before the borders: so many have the length that they have on the average. From one of
        -- their ends to another it is never off by half a window, whatever clocks and months do; from
        -- anywhere else it is one too few, or right.
        local before_them = math.floor(math.max(0, borders[1] - old_end) / length + 0.5)
        ended = 1 + math.max(0, before_them - 1)
        for place = 1, BORDERS do
          if borders[place] > old_end and borders[place] <= start then ended = ended + 1 end
        end
      end
      used = math.max(0, old_used - pays * ended)
      if kind == FIRST_HIT and used > 0 then
        start = now - (now - old_end) % length
        end_ = start + length
      end
    elseif now < math.max(0, old_start - (old_end - old_start)) then
      -- The clock went back by more than a window.
      if kind ~= FIRST_HIT then start, end_ = at_(end_) end
    elseif old_end == old_start + length
        -- One that is not half as long as they are on the average, or half as long again.
        or kind == CALENDAR and math.abs(old_end - old_start - length) <= length / 2 then
      start, end_ = old_start, old_end
    elseif kind == FIRST_HIT and now < old_start + length then
      start, end_ = old_start, old_start + length
    end
  end
  -- Which windows a calendar had before is not known here, so it is told what was made of them.
  local before = state and #state == 24 and state or struct.pack('<ddd', old_start, old_end, old_used)
  if kind == CALENDAR then before = struct.pack('<ddd', start, end_, used) end

  -- The usual: there is room. It takes none of the functions that follow.
  if (op == TAKE or op == PEEK) and not_before <= now
      and units * count <= limit and used <= limit - units * count then
    used = used + units * count
    if units * count == 0 or is_look then return count, before end
    return count, before, struct.pack('<ddd', start, end_, used), end_
  end

  -- When so many windows have ended, the present one included: of a calendar at the latest.
  local function end_of(windows)
    local later = math.max(1, windows) - 1
    if later == 0 then return end_ end
    if kind == ALIGNED then
      local _, next_ = at_(end_)
      return next_ + length * (later - 1)
    end
    return end_ + later * (kind == FIRST_HIT and length or LONGEST)
  end
  -- Until all of the use has been paid off.
  local function changed(count_, parts, gives_turn)
    local idle = parts > 0 and end_of(math.ceil(parts / pays)) or start
    local new = struct.pack('<ddd', start, end_, parts)
    if parts > pays and (gives_turn or turns > 0) then new = new .. struct.pack('<d', pays) end
    return count_, before, new, idle
  end

  if op == FILL then op, count = SETTLE, limit end
  if op == SETTLE then
    before = ''
    if count > 0 then return changed(0, math.min(MOST, used + count)) end
    if not state or units == 0 then return 0, before end
    if ahead == 0 then
      if at < start or at >= end_ then return 0, before end
      return changed(0, math.max(0, used - units))
    end
    -- To the window that the last turn is in, which has so many before it. Where those of a calendar
    -- begin that are not the next one is not known; they have no turns.
    if used == 0 then return 0, before end
    local earlier = math.floor((used - 1) / pays)
    local from_, to = start, end_
    if earlier > 0 then
      from_, to = end_of(earlier), end_of(earlier + 1)
      if kind == CALENDAR and earlier > 1 then from_ = to end
      if kind == CALENDAR and earlier == 1 then
        for place = 1, BORDERS - 1 do
          if borders[place] == end_ then to = borders[place + 1] end
        end
      end
    end
    if at < from_ or at >= to then return 0, before end
    return changed(0, math.max(earlier * pays, used - units))
  end

  -- How many windows have to end until so many units find room, and whether that is near enough.
  local function turn(parts)
    local ending = math.ceil(math.max(0, used - (limit - parts)) / pays)
    if parts > 0 and not_before >= end_ then
      local ended = 1
      if kind == FIRST_HIT then
        ended = math.floor((not_before - end_) / length) + 1
      elseif kind == ALIGNED then
        ended = math.max(0, math.ceil((at_(not_before) - end_) / length)) + 1
      else
        for place = 1, BORDERS do
          if borders[place] > end_ and borders[place] <= not_before then ended = ended + 1 end
        end
      end
      ending = math.max(ending, ended)
    end
    if ending == 0 then return 0, parts == 0 or not_before - ahead <= now end
    local most = kind == CALENDAR and 1 or math.floor(MOST / pays) - 1
    if ahead == 0 or op == LOWER or ending > most then return ending, false end
    return ending, math.max(parts > 0 and not_before or 0, end_of(ending)) - ahead <= now
  end

  if op == TURN then
    if units * count > limit then return -1, before end
    local ending = turn(units * count)
    if kind == CALENDAR and ending > 1 then return -1, before end
    return ending == 0 and now or end_of(ending), before
  end

  if op == TAKE_UP_TO or op == COUNT then
    local ending, is_near = turn(math.min(units, limit))
    local there = limit - math.max(0, used - ending * limit)
    count = granted(op, count, units, is_near and units <= limit and there or -1)
  else
    count = granted(op, count, units, limit - used)
  end
  local total = units * count
  if total > limit then return -1, before end
  local ending, is_near = turn(total)
  if not is_near then
    -- Should the window have moved, it must not move along with the present.
    local moved = now < old_end and (start ~= old_start or end_ ~= old_end)
    if moved and not is_look then return changed(-1, used) end
    return -1, before
  end
  if total == 0 or is_look then return count, before end
  return changed(count, math.max(used, ending * limit) + total, ending > 0)
end
