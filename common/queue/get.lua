-- get: one task with its texts.  ARGV: 1 id.  Reply: view, attempts, result; or nil
local v = view(ARGV[1])
if not v then return false end
local x = call('HMGET', P .. 'x:' .. ARGV[1], 'a', 'r')
return {v, x[1], x[2]}
