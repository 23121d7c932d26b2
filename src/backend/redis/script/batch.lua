-- A batch of jobs, each for itself.
local began = nil
if began_at then began = began_at(KEYS[jobs + 1]) end

local replies = nil
for job = 1, jobs do
  local count, before = attempt(decide, KEYS[job], ARGV[job], 1, began)
  if not count then return before end
  if jobs == 1 then return struct.pack('<dd', now, count) .. before end
  replies = replies or { struct.pack('<d', now) }
  replies[job * 2], replies[job * 2 + 1] = struct.pack('<d', count), before
end
return table.concat(replies)
