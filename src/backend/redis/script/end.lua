local replies = { pack('<d', now) }
for i = 1, #KEYS do
  local ok, reply = pcall(decide, KEYS[i], ARGV[i + 1])
  if not ok then
    -- A value that is none of ours fails its own job. What concerns them all is the call's error.
    local text = type(reply) == 'table' and reply.err or tostring(reply)
    if not (text:find('WRONGTYPE') or text:find('data string too short')) then
      return redis.error_reply(text)
    end
    reply = pack('<d', 2)
  end
  replies[i + 1] = reply
end
return table.concat(replies)
