local replies = { pack('<d', now) }
for i = 1, #KEYS do
  replies[i + 1] = decide(KEYS[i], ARGV[i + 1])
end
return table.concat(replies)
