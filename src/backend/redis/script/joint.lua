-- Limits on several keys as one: all are looked at, and if none refuses all are taken. KEYS has a name
-- for each job, all different, then the marks. ARGV[i + 1] is job i, behind the place of its algorithm
-- and that of its mark (0: it has none).
local algorithms_of_jobs = { meter, fixed_window, sliding_window, sliding_counter, sliding_log, plan }
local jobs = #ARGV - 1
provide()
local from = 17

local decides, states, counts, seen = {}, {}, {}, {}
local function look(job)
  local kind, mark = unpack_('<dd', ARGV[job + 1])
  local decide = algorithms_of_jobs[kind]
  local state = call('GET', KEYS[job]) or nil
  if not state and mark > 0 then
    state = lost(decide, began_at(KEYS[mark]), ARGV[job + 1], from)
  end
  as = PEEK
  local count, before = decide(state, ARGV[job + 1], from)
  as = nil
  decides[job], states[job] = decide, state
  return count, before
end

local is_refused, has_failed = false, false
for job = 1, jobs do
  local ok, count, before = pcall(look, job)
  if not ok then
    local own, of_all = failure(count)
    if of_all then return of_all end
    count, before, has_failed = own, '', true
  end
  counts[job], seen[job] = count, before
  is_refused = is_refused or count < 0
end

for job = 1, jobs do
  -- A limit that refuses takes nothing, but may note that the clock went back.
  if not has_failed and (counts[job] < 0 or not is_refused) then
    local _, _, new, idle = decides[job](states[job], ARGV[job + 1], from)
    if new then write(KEYS[job], new, idle) end
  end
end

local replies = { pack('<d', now) }
for job = 1, jobs do
  replies[job * 2], replies[job * 2 + 1] = pack('<d', counts[job]), seen[job]
end
return table.concat(replies)
