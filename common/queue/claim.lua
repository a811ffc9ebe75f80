-- claim: lease the next task to a worker, fairly between groups and within the registries' limits.
-- ARGV: 1 worker  2 nonce (128 random bits, made before the call, sent again until answered)  3 lease ms
-- Replies: TASK id tok request attempt crashes enqueued deadline-in-ms ['replay'] | EMPTY due-in-ms or -1 | PAUSED
local nonce = ARGV[2]

-- f: tok fl crash enq dl
local function answer(id, request, f, replay)
  return {'TASK', id, f[1], request, tonumber(f[2] or '0') + 1, tonumber(f[3] or '0'), tonumber(f[4]),
    tonumber(f[5]) - now, replay}
end

-- the reply to this very claim was lost: the same answer again
local held = call('HGET', P .. 'claims', nonce)
if held then
  local f = call('HMGET', P .. 't:' .. held, 'tok', 'fl', 'crash', 'enq', 'dl', 'st', 'own')
  if f[6] == 'running' and f[7] == nonce then return answer(held, call('GET', P .. 'p:' .. held), f, 'replay') end
end
if call('HGET', KEYS[1], 'paused') == '1' then return {'PAUSED'} end

local due = call('ZRANGE', P .. 'delay', '-inf', now, 'BYSCORE', 'LIMIT', 0, 8)
for i = 1, #due do
  local f = call('HMGET', P .. 't:' .. due[i], 'st', 'b', 'g', 'r', 'seq', 'enq')
  call('ZREM', P .. 'delay', due[i])
  if f[1] == 'delayed' then
    call('HDEL', P .. 't:' .. due[i], 'wait')
    make_ready(due[i], f[2], f[3], f[4], f[5], f[6])
    event(due[i], 'ready')
  end
end

local function take(id, band, ring, g, start, r, f, request)
  local rec, rk = P .. 't:' .. id, P .. 'r:' .. band .. ':' .. g
  call('ZREM', rk, id)
  -- start-time fair queueing: served once, the group goes one unit back
  if call('ZCARD', rk) > 0 then
    call('ZADD', ring, start + 1, g)
  else
    call('ZREM', ring, g)
    call('SREM', P .. 'park:' .. r, band .. ':' .. g)
  end
  call('HSET', KEYS[1], 'V' .. band, start)
  call('HINCRBY', P .. 'run', r, 1)
  -- tok orders attempts, also across a failover that forgot some; own (the nonce) is the fence (I2)
  f[1] = string.format('%.0f', math.max(tonumber(f[1]) + 1, us))
  call('HSET', rec, 'st', 'running', 'own', nonce, 'tok', f[1], 'wk', ARGV[1], 'start', now,
    'att', tonumber(f[9]) + 1)
  call('ZADD', P .. 'lease', now + tonumber(ARGV[3]), id)
  call('HSET', P .. 'claims', nonce, id)
  event(id, 'running')
  return answer(id, request, f)
end

-- strict bands, but every 8th claim serves the lowest band first (no starvation)
local low = call('HINCRBY', KEYS[1], 'n', 1) % 8 == 0
for k = 0, 2 do
  local band = low and 2 - k or k
  local ring = P .. 'ring:' .. band
  for _ = 1, 16 do -- at most 16 groups are looked at: the script does not grow with the queue
    local h = call('ZRANGE', ring, 0, 0, 'WITHSCORES')
    if #h == 0 then break end
    local g, start = h[1], tonumber(h[2])
    local rk = P .. 'r:' .. band .. ':' .. g
    local id = call('ZRANGE', rk, 0, 0)[1]
    if not id then
      call('ZREM', ring, g)
    else
      local f = call('HMGET', P .. 't:' .. id, 'tok', 'fl', 'crash', 'enq', 'dl', 'r', 'st', 'dk', 'att')
      local r, st, request = f[6], f[7], call('GET', P .. 'p:' .. id)
      if st ~= 'ready' then -- an index entry without its record: step over it, or nothing would ever be claimed
        call('ZREM', rk, id)
        if not st then
          call('ZREM', P .. 'work', id)
          call('ZREM', P .. 'all', id)
          count('lostrec')
        end
      elseif not request then -- a record without its request
        call('ZREM', rk, id)
        call('HSET', P .. 't:' .. id, 'code', 'bug')
        put_text(id, 'e', "the request's record is gone from Redis")
        end_task(id, 'failed', true, g, f[8], 0)
      elseif free_slots(r) <= 0 then -- the finish that frees a slot puts one group back
        call('ZREM', ring, g)
        call('SADD', P .. 'park:' .. r, band .. ':' .. g)
        call('SADD', P .. 'parked', r)
      else
        return take(id, band, ring, g, start, r, f, request)
      end
    end
  end
end
local nd = call('ZRANGE', P .. 'delay', 0, 0, 'WITHSCORES')
return {'EMPTY', nd[2] and math.max(0, math.ceil(tonumber(nd[2]) - now)) or -1}
