-- publish: may this attempt PUT the target's tag, and until when?
-- ARGV: 1 id  2 nonce  3 hash of the target  4 source reference  5 ticket  6 lease ms  7 lock ms
--       8 seconds for own output  9 seconds for pub:  10.. hex of the digests about to be pushed
-- Replies: OK valid-ms takeover | LOST | CANCELLED | WAIT | CONFLICT source | SUPERSEDED | BUSY
local id, nonce, h, ticket = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local rec, pub, lock = P .. 't:' .. id, P .. 'pub:' .. h, P .. 'lock:' .. h
local f = call('HMGET', rec, 'st', 'own', 'cxl', 'pub')
if f[1] ~= 'running' or f[2] ~= nonce then return {'LOST'} end
if f[3] and not f[4] then return {'CANCELLED'} end
if now < tonumber(call('HGET', KEYS[1], 'grace') or '0') then return {'WAIT'} end
local p = call('HMGET', pub, 'src', 'granted', 'held', 'hid', 'dirty')
if p[1] and p[1] ~= ARGV[4] then return {'CONFLICT', p[1]} end
-- a later ticket has seen a later source tag
if p[2] and tonumber(p[2]) > tonumber(ticket) then return {'SUPERSEDED'} end
-- The lock is free, ours, or of an earlier attempt of this very task, whose lease is gone.
local holder = call('GET', lock)
if holder and holder ~= nonce and p[4] ~= id then return {'BUSY'} end

-- held: who took the lock and has not said that its PUT was answered.  The registry may still apply that PUT, for
-- as long again: whoever publishes until then looks at the target once more, or the late PUT would stay.
local takeover = p[3] and p[3] ~= nonce
if takeover then call('HSET', pub, 'dirty', now + tonumber(ARGV[7])) end
takeover = (takeover or now < tonumber(p[5] or '0')) and 1 or 0
call('SET', lock, nonce, 'PX', ARGV[7])
call('HSET', pub, 'granted', ticket, 'id', id, 'src', ARGV[4], 'held', nonce, 'hid', id)
call('EXPIRE', pub, ARGV[9])
call('ZADD', P .. 'lease', 'XX', 'GT', now + tonumber(ARGV[6]), id)
call('HSET', rec, 'pub', '1')
for i = 10, #ARGV do call('SET', P .. 'own:' .. ARGV[i], id, 'EX', ARGV[8]) end
event(id, 'publishing')
return {'OK', math.floor(math.min(tonumber(ARGV[6]) * 0.8, tonumber(ARGV[7]) * 0.8)), takeover}
