-- Limits on several keys as one: all are looked at, and if none refuses all are taken. The names
-- are all different. Behind them are those of the marks; a job is behind the place of its algorithm
-- and that of its mark (0: it has none).
local algorithms_of_jobs =
  { meter, fixed_window, sliding_window, sliding_counter, sliding_log, plan }
local PEEK, FROM = 2, 17

local function each(job, as)
  local kind, mark = struct.unpack('<dd', ARGV[job])
  local began = nil
  if mark > 0 then began = began_at(KEYS[mark]) end
  return attempt(algorithms_of_jobs[kind], KEYS[job], ARGV[job], FROM, began, as)
end

local replies, counts, is_refused, has_failed = { struct.pack('<d', now) }, {}, false, false
for job = 1, jobs do
  local count, before = each(job, PEEK)
  if not count then return before end
  counts[job], replies[job * 2], replies[job * 2 + 1] = count, struct.pack('<d', count), before
  is_refused, has_failed = is_refused or count < 0, has_failed or count < -1
end
for job = 1, jobs do
  -- A limit that refuses takes nothing, but may note that the clock went back.
  if not has_failed and (counts[job] < 0 or not is_refused) then
    local count, problem = each(job)
    if not count then return problem end
  end
end
return table.concat(replies)
