-- tick: expire leases, promote what is due, heal parked groups and hints, retention.  Anyone may call it, any time.
-- ARGV: 1 lease ms  2 max_gap ms  3 batch  4..8 retention  9 limit of a registry without one of its own,
--       then pairs: registry limit
-- Reply: leases expired, tasks promoted, tasks ended, 1 in the outage grace (0 0 0 g when called too soon)
local lease, batch = tonumber(ARGV[1]), tonumber(ARGV[3])
local m = call('HMGET', KEYS[1], 'tick', 'grace')
local last, grace = tonumber(m[1] or '0'), tonumber(m[2] or '0')
if now - last < 200 and now >= last then return {0, 0, 0, now < grace and 1 or 0} end -- at most 5 a second

call('HSET', KEYS[1], 'tick', now)
-- The outage guard.  Nobody ticked for max_gap (Redis was down, everybody was cut off, or the clock jumped):
-- the workers could not renew either, so nothing expires for one more lease.
if last > 0 and (now - last > tonumber(ARGV[2]) or now < last) then
  grace = now + lease
  call('HSET', KEYS[1], 'grace', grace)
end
if now < last then -- the clock went back: no lease, and no grace, may last longer than one from now
  local far = call('ZRANGE', P .. 'lease', '(' .. (now + lease), '+inf', 'BYSCORE', 'LIMIT', 0, 1000)
  for i = 1, #far do call('ZADD', P .. 'lease', 'XX', now + lease, far[i]) end
end
-- limits as configured: by whoever ticks last; written only when they differ
for i = 9, #ARGV, 2 do
  local r = i == 9 and '*' or ARGV[i - 1]
  if call('HGET', P .. 'lim', r) ~= ARGV[i] then call('HSET', P .. 'lim', r, ARGV[i]) end
end

-- I4: leases that ran out
local expired, ended = 0, 0
if now >= grace then
  local ex = call('ZRANGE', P .. 'lease', '-inf', now, 'BYSCORE', 'LIMIT', 0, batch)
  for i = 1, #ex do
    local id = ex[i]
    local rec = P .. 't:' .. id
    local f = call('HMGET', rec, 'st', 'own', 'r', 'g', 'seq', 'dk', 'cxl', 'pub', 'dl', 'enq', 'tok', 'wk', 'start')
    if f[1] ~= 'running' then
      call('ZREM', P .. 'lease', id)
    else
      expired = expired + 1
      leave_running(id, f[2], f[3])
      call('HINCRBY', rec, 'exp', 1)
      local wk = string.match(f[12] or '', '^[%w%._:-]+$') or '?'
      add_attempt(id, string.format('{"epoch":%s,"worker":"%s","outcome":"lost","reason_code":"system",' ..
        '"reason":"worker lost","ms":%.0f}', f[11], wk, math.max(0, now - tonumber(f[13] or now))))
      if f[7] and not f[8] then
        call('HSET', rec, 'code', 'cancelled')
        put_text(id, 'e', 'cancelled')
        end_task(id, 'cancelled', false, f[4], f[6], 0)
        ended = ended + 1
      elseif now >= tonumber(f[9]) then
        call('HSET', rec, 'code', 'system')
        put_text(id, 'e', "worker lost, and the task's deadline has passed")
        end_task(id, 'failed', true, f[4], f[6], 0)
        ended = ended + 1
      else -- recovery lane: ahead of everything else, at its old place; its later tries are in its own band again
        make_ready(id, '0', f[4], f[3], f[5], f[10])
        event(id, 'ready')
      end
    end
  end
  if expired > 0 then count('expired', expired) end
end

-- retries and scheduled tasks that are due
local promoted = 0
local due = call('ZRANGE', P .. 'delay', '-inf', now, 'BYSCORE', 'LIMIT', 0, batch)
for i = 1, #due do
  local f = call('HMGET', P .. 't:' .. due[i], 'st', 'b', 'g', 'r', 'seq', 'enq')
  call('ZREM', P .. 'delay', due[i])
  if f[1] == 'delayed' then
    call('HDEL', P .. 't:' .. due[i], 'wait')
    make_ready(due[i], f[2], f[3], f[4], f[5], f[6])
    event(due[i], 'ready')
    promoted = promoted + 1
  end
end

-- heal: a registry with free slots must not keep groups parked; ready work must have a hint
local pr = call('SRANDMEMBER', P .. 'parked', 16)
for i = 1, #pr do
  if call('SCARD', P .. 'park:' .. pr[i]) == 0 then
    call('SREM', P .. 'parked', pr[i])
  else
    local free = free_slots(pr[i])
    if free > 0 then unpark(pr[i], math.min(free, 16)) end
  end
end
if call('LLEN', P .. 'wake') == 0 then
  for b = 0, 2 do
    if call('ZCARD', P .. 'ring:' .. b) > 0 then
      call('RPUSH', P .. 'wake', '1')
      break
    end
  end
end
evict(4, 16)
return {expired, promoted, ended, now < grace and 1 or 0}
