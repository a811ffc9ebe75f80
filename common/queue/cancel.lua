-- cancel: end a waiting task now; flag a running one (told by the next heartbeat, kept by tick if the worker dies).
-- ARGV: 1 id
-- Replies: OK cancelled | OK cancelling | TERMINAL st | TOOLATE | GONE
local id = ARGV[1]
local rec = P .. 't:' .. id
local f = call('HMGET', rec, 'st', 'q', 'g', 'dk', 'r', 'pub', 'cxl')
if not f[1] then return {'GONE'} end
if f[1] == 'done' or f[1] == 'failed' or f[1] == 'cancelled' then return {'TERMINAL', f[1]} end -- I3
if f[1] == 'running' then
  if f[6] then return {'TOOLATE'} end -- a tag may already have moved
  if not f[7] then
    call('HSET', rec, 'cxl', now)
    event(id, 'cancelling')
  end
  return {'OK', 'cancelling'}
end
if f[1] == 'ready' then unready(id, f[2], f[3], f[5]) else call('ZREM', P .. 'delay', id) end
call('HSET', rec, 'code', 'cancelled')
put_text(id, 'e', 'cancelled')
end_task(id, 'cancelled', false, f[3], f[4], 0)
return {'OK', 'cancelled'}
