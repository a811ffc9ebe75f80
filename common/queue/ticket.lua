-- ticket: a place in the order in which tasks looked at the source tag of a target.  Taken before the look.
-- ARGV: 1 id  2 nonce  3 hash of the target  4 seconds for which what is published stays known
-- Replies: OK ticket | LOST
local f = call('HMGET', P .. 't:' .. ARGV[1], 'st', 'own')
if f[1] ~= 'running' or f[2] ~= ARGV[2] then return {'LOST'} end
local pub = P .. 'pub:' .. ARGV[3]
local ticket = string.format('%.0f', math.max(tonumber(call('HGET', pub, 'last') or '0') + 1, us))
call('HSET', pub, 'last', ticket)
call('EXPIRE', pub, ARGV[4])
call('HSET', P .. 't:' .. ARGV[1], 'tk', '1') -- from here on nobody joins it (enqueue)
return {'OK', ticket}
