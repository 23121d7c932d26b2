-- A batch of jobs, each for itself.
local jobs, began = #KEYS, nil
if ARGV[2] ~= '' then
  provide()
  jobs = jobs - 1
  began = began_at(KEYS[#KEYS])
end

local function carry_out(key, job)
  local state = call('GET', key) or nil
  if not state and began then state = lost(decide, began, job, 1) end
  local count, before, new, idle = decide(state, job, 1)
  if new then write(key, new, idle) end
  return count, before
end

local replies = nil
for job = 1, jobs do
  local ok, count, before = pcall(carry_out, KEYS[job], ARGV[job + 2])
  if not ok then
    provide()
    local own, of_all = failure(count)
    if of_all then return of_all end
    count, before = own, ''
  end
  if jobs == 1 then return pack('<dd', now, count) .. before end
  replies = replies or { pack('<d', now) }
  replies[job * 2], replies[job * 2 + 1] = pack('<d', count), before
end
return table.concat(replies)
