-- lib: in front of every script (scripts.c joins them).  queue.md says what each key holds and promises.
-- KEYS[1] = acc:{s}:meta; all other keys are derived from it and lie in the same slot.
-- Scripts look at all they need before their first write: Redis does not roll back.
local P = string.sub(KEYS[1], 1, -5)
local call = redis.call
local TIME = call('TIME') -- the only clock
local us = TIME[1] * 1000000 + TIME[2]
local now = math.floor(us / 1000)

local function event(id, st) call('XADD', P .. 'ev', 'MAXLEN', '~', '10000', '*', 'id', id, 'st', st) end
local function count(what, n) call('HINCRBY', P .. 'cnt', what, n or 1) end
local function hint(n)
  local room = 256 - call('LLEN', P .. 'wake')
  local one = {}
  for i = 1, math.min(n or 1, room) do one[i] = '1' end
  if #one > 0 then call('RPUSH', P .. 'wake', unpack(one)) end
end
-- the virtual time of a band, where a group that comes anew starts
local function virtual(b) return tonumber(call('HGET', KEYS[1], 'V' .. b) or '0') end

-- slots of a registry that may be filled now
local function free_slots(r)
  if call('EXISTS', P .. 'pause:' .. r) == 1 then return 0 end
  local l = call('HMGET', P .. 'lim', r, '*')
  return tonumber(l[1] or l[2] or '16') - tonumber(call('HGET', P .. 'run', r) or '0')
end

-- group g has ready work in band b: onto the ring, or beside it until its registry has a slot.  One that is on the
-- ring stays there: claim parks it when it finds no slot.  False: it is parked.
local function put_on_ring(b, g, r)
  local ring = P .. 'ring:' .. b
  if not call('ZSCORE', ring, g) then
    if free_slots(r) <= 0 then
      call('SADD', P .. 'park:' .. r, b .. ':' .. g)
      call('SADD', P .. 'parked', r)
      return false
    end
    call('ZADD', ring, virtual(b), g)
  end
  return true
end
local function offer(b, g, r)
  if put_on_ring(b, g, r) then hint() end
end

-- into the line of its group; q: the band it waits in (0 in the recovery lane), whatever its own band b is
local function stand_in_line(id, q, g, r, seq, enq)
  call('ZADD', P .. 'work', enq, id)
  call('ZADD', P .. 'r:' .. q .. ':' .. g, seq, id)
  offer(q, g, r)
end
local function make_ready(id, q, g, r, seq, enq)
  call('HSET', P .. 't:' .. id, 'st', 'ready', 'q', q, 'own', '')
  stand_in_line(id, q, g, r, seq, enq)
end

-- takes a ready task out of line; an emptied group leaves ring and park, or a slot that gets free would
-- be given to it in place of one that has work
local function unready(id, q, g, r)
  local rk = P .. 'r:' .. q .. ':' .. g
  call('ZREM', rk, id)
  if call('ZCARD', rk) == 0 then
    call('ZREM', P .. 'ring:' .. q, g)
    call('SREM', P .. 'park:' .. r, q .. ':' .. g)
  end
end

-- up to n parked groups of r go back on their rings; those without work are dropped
local function unpark(r, n)
  for _ = 1, n + 8 do
    if n <= 0 then return end
    local pk = call('SPOP', P .. 'park:' .. r)
    if not pk then return end -- tick takes r off the list of parked
    local b, g = string.sub(pk, 1, 1), string.sub(pk, 3)
    if call('ZCARD', P .. 'r:' .. b .. ':' .. g) > 0 then
      call('ZADD', P .. 'ring:' .. b, 'NX', virtual(b), g)
      hint()
      n = n - 1
    end
  end
end

-- an attempt ends, however it does; the caller clears own in the same step (I2)
local function leave_running(id, nonce, r)
  call('ZREM', P .. 'lease', id)
  call('HDEL', P .. 'claims', nonce)
  call('HDEL', P .. 't:' .. id, 'pub', 'tk', 'prog')
  if call('HINCRBY', P .. 'run', r, -1) <= 0 then call('HDEL', P .. 'run', r) end
  if call('SCARD', P .. 'park:' .. r) > 0 and free_slots(r) > 0 then unpark(r, 1) end
end

local function close_group(g)
  if call('HINCRBY', P .. 'grp', g, -1) <= 0 then call('HDEL', P .. 'grp', g) end
end

-- texts beside the record: e reason, a attempts (a JSON object a line), r result
local function put_text(id, field, text)
  local x = P .. 'x:' .. id
  if text == '' then
    call('HDEL', x, field)
    return -- n keeps what it was: it is an estimate
  end
  local old = call('HGET', x, field)
  call('HSET', x, field, text)
  if not old or #text ~= #old then call('HINCRBY', P .. 't:' .. id, 'n', #text - (old and #old or 0)) end
end

local function add_attempt(id, line)
  if line == '' then return end
  local a = call('HGET', P .. 'x:' .. id, 'a')
  a = a and (a .. '\n' .. line) or line
  if #a > 65536 then -- the oldest go
    local cut = string.find(a, '\n', #a - 49152, true)
    a = cut and string.sub(a, cut + 1) or ''
  end
  put_text(id, 'a', a)
end

-- The one way to an end: record, indexes, dedup key, counts.  The task is no longer running.
-- fresh: ms for which a done task still answers its dedup key.  Returns how many ended so before.
local function end_task(id, st, dead, g, dk, fresh)
  local rec = P .. 't:' .. id
  call('ZREM', P .. 'work', id)
  call('HSET', rec, 'st', st, 'fin', now, 'own', '')
  call('HDEL', rec, 'cxl', 'wait', 'q')
  if dead then call('HSET', rec, 'dead', '1') count('dead') end
  -- finer than ms: those that ended in one ms are in order, too, and the oldest leaves first
  call('ZADD', P .. (dead and 'dead' or 'fin'), string.format('%.3f', us / 1000), id)
  if st == 'done' and fresh > 0 then
    local cur = call('GET', P .. 'd:' .. dk) -- a younger task may have taken the key
    if not cur or cur == id then call('SET', P .. 'd:' .. dk, id, 'PX', fresh) end
  elseif call('GET', P .. 'd:' .. dk) == id then
    call('DEL', P .. 'd:' .. dk)
  end
  close_group(g)
  count('bytes', tonumber(call('HGET', rec, 'n') or '0') + 700)
  event(id, st)
  return call('HINCRBY', P .. 'cnt', st, 1)
end

local function drop_task(id, index)
  local f = call('HMGET', P .. 't:' .. id, 'dk', 'n')
  if f[1] then
    if call('GET', P .. 'd:' .. f[1]) == id then call('DEL', P .. 'd:' .. f[1]) end
    count('bytes', -(tonumber(f[2] or '0') + 700))
  end
  call('DEL', P .. 't:' .. id, P .. 'p:' .. id, P .. 'x:' .. id)
  call('ZREM', P .. index, id)
  call('ZREM', P .. 'all', id)
end

-- retention: at most n of the oldest leave.  k = first of five arguments: finished kept, their ms, dead kept,
-- their ms, bytes of both
local function evict(k, n)
  for _, index in ipairs({'fin', 'dead'}) do
    local keep, age = tonumber(ARGV[k]), tonumber(ARGV[k + 1])
    while n > 0 do
      local old = call('ZRANGE', P .. index, 0, 0, 'WITHSCORES')
      if #old == 0 or (call('ZCARD', P .. index) <= keep and now - tonumber(old[2]) <= age and
          tonumber(call('HGET', P .. 'cnt', 'bytes') or '0') <= tonumber(ARGV[index == 'fin' and k + 4 or k + 2])) then
        break
      end
      drop_task(old[1], index)
      n = n - 1
    end
    k = k + 2
  end
end

-- What get and list show of a task; queue.c reads it in this order.
local function view(id)
  local f = call('HMGET', P .. 't:' .. id, 'st', 'tok', 'wk', 'att', 'max', 'crash', 'enq', 'start', 'fin',
    'cxl', 'prog', 'joins', 'parent', 'code', 'skip', 'wait', 'ss', 'ts', 'dead', 'b', 'exp')
  if not f[1] then return nil end
  f[#f + 1] = call('GET', P .. 'p:' .. id)
  f[#f + 1] = call('HGET', P .. 'x:' .. id, 'e')
  f[#f + 1] = id
  return f
end
