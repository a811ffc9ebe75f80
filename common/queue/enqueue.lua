-- enqueue: store a task and make it claimable, or join the one that is already there.
-- No allow-oom: Redis refuses this script when memory is full, before it has written anything (I6).
-- ARGV: 1 id  2 dedup key  3 group (tenant|registry)  4 registry  5 band  6 request  7 max_open  8 max_group
--       9 delay ms  10 max attempts  11 fresh ms  12 deadline ms  13 parent or ''
--       14 hex of the event's digest or ''  15 '1': the request names no digest  16.. hashes of the targets
-- Replies: OK id | DUP id st | FULL | FULLG | ECHO
local id, dk, g, r, band = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

if call('EXISTS', P .. 't:' .. id) == 1 then return {'OK', id} end -- sent again after a lost reply
if ARGV[14] ~= '' and call('EXISTS', P .. 'own:' .. ARGV[14]) == 1 then
  count('echo')
  return {'ECHO'}
end

-- A done task is joined while fresh, and while each of its targets still carries what it published:
-- otherwise A -> B -> A would end at B.
local function still_there(cur)
  if ARGV[13] ~= '' then return false end
  local fin = tonumber(call('HGET', P .. 't:' .. cur, 'fin') or '0')
  if tonumber(ARGV[11]) <= 0 or now - fin > tonumber(ARGV[11]) or #ARGV < 16 then return false end
  for i = 16, #ARGV do
    if call('HGET', P .. 'pub:' .. ARGV[i], 'id') ~= cur then return false end
  end
  return true
end

-- An open task is joined unless it is being cancelled, or has already looked at the source tag (it took a
-- ticket, or names no digest and has started): it may have seen the tag before it moved.
local cur = call('GET', P .. 'd:' .. dk)
if cur then
  local f = call('HMGET', P .. 't:' .. cur, 'st', 'cxl', 'tk', 'b', 'q', 'g', 'r', 'seq', 'att')
  local st = f[1]
  local join = false
  if st == 'done' then
    join = still_there(cur)
  elseif st == 'ready' or st == 'delayed' then
    join = not f[2] and (ARGV[15] ~= '1' or f[9] == '0')
  elseif st == 'running' then
    join = not f[2] and not f[3] and ARGV[15] ~= '1'
  end
  if join then
    call('HINCRBY', P .. 't:' .. cur, 'joins', 1)
    count('dup')
    if st ~= 'done' and band < tonumber(f[4]) then -- the more urgent of the two counts
      call('HSET', P .. 't:' .. cur, 'b', band)
      if st == 'ready' and band < tonumber(f[5]) then
        unready(cur, f[5], f[6], f[7])
        call('HSET', P .. 't:' .. cur, 'q', band)
        call('ZADD', P .. 'r:' .. band .. ':' .. f[6], f[8], cur)
        offer(band, f[6], f[7])
      end
    end
    return {'DUP', cur, st}
  end
end

if call('ZCARD', P .. 'work') + call('ZCARD', P .. 'delay') >= tonumber(ARGV[7]) then return {'FULL'} end
if call('HINCRBY', P .. 'grp', g, 1) > tonumber(ARGV[8]) then
  call('HINCRBY', P .. 'grp', g, -1)
  return {'FULLG'}
end

local seq = call('INCR', P .. 'seq') -- also the count of all that were ever accepted
local delay = tonumber(ARGV[9])
local st = delay > 0 and 'delayed' or 'ready'
-- every field stays within 64 bytes, so that the hash stays a listpack; the request is a key of its own
call('HSET', P .. 't:' .. id, 'st', st, 'v', 1, 'b', band, 'q', band, 'g', g, 'r', r, 'dk', dk, 'seq', seq, 'tok', 0,
  'att', 0, 'max', ARGV[10], 'enq', now, 'dl', now + tonumber(ARGV[12]), 'n', #ARGV[6])
if ARGV[13] ~= '' then call('HSET', P .. 't:' .. id, 'parent', ARGV[13]) end
call('SET', P .. 'p:' .. id, ARGV[6])
call('SET', P .. 'd:' .. dk, id)
call('ZADD', P .. 'all', string.format('%.3f', us / 1000), id) -- finer than ms: the list is in order of arrival
if delay > 0 then
  call('HSET', P .. 't:' .. id, 'wait', '1')
  call('ZADD', P .. 'delay', now + delay, id)
else
  stand_in_line(id, band, g, r, seq, now)
end
event(id, st)
return {'OK', id}
