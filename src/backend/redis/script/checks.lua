-- A state that is none of ours fails its own job.
local function must(is_ours)
  if not is_ours then error('none of ours') end
end

-- All numbers of a state are. With another one a loop may have no end, and what is told cannot be
-- read: then the whole batch would fail.
local function whole(number)
  return number >= 0 and number <= 9007199254740991 and number % 1 == 0
end
