-- enqueue: store tasks and make them claimable, or join those that are already there.  One call carries what came in
-- one turn of a server's loop: half of what a call costs is spent before its first line, and again for each key.  Each
-- request is answered for itself, as if it had come alone and in this order.
-- No allow-oom: Redis refuses this script when memory is full, before it has written anything (I6).
-- ARGV: 1 max_open  2 max_group  3 max attempts  4 deadline ms, and then for each request
--       1 id  2 dedup key  3 group (tenant|registry)  4 registry  5 band  6 request  7 delay ms  8 fresh ms
--       9 parent or ''  10 hex of the event's digest or ''  11 '1': the request names no digest
--       12 how many hashes of targets follow
-- Replies, one a request: OK | {DUP, id, st} | FULL | FULLG | ECHO | {ERR, text}
-- Numbers go to Redis as text: it prints each Lua number with %.17g, which costs more than the field it is for.
local max_open, max_group = tonumber(ARGV[1]), tonumber(ARGV[2])
local ms, deadline = string.format('%d', now), string.format('%d', now + tonumber(ARGV[4]))
local open = call('ZCARD', P .. 'work') + call('ZCARD', P .. 'delay')

-- What several requests write to the same key is collected, and written by settle().
local seq = tonumber(call('GET', P .. 'seq') or '0') -- also the count of all that were ever accepted
local first = seq
local stored, all, work, grown, told = 0, {}, {}, {}, {}
local groups = {} -- how many are open
local lines, line_names = {}, {}
local function settle()
  if stored == 0 then return end
  call('SET', P .. 'seq', string.format('%d', seq))
  call('ZADD', P .. 'all', unpack(all))
  local counts = {}
  for g in pairs(grown) do counts[#counts + 1], counts[#counts + 2] = g, string.format('%d', groups[g]) end
  call('HSET', P .. 'grp', unpack(counts))
  if #work > 0 then call('ZADD', P .. 'work', unpack(work)) end
  local hints = 0
  for _, name in ipairs(line_names) do
    local l = lines[name]
    call('ZADD', P .. 'r:' .. name, unpack(l))
    if put_on_ring(l.band, l.g, l.r) then hints = hints + #l / 2 end
  end
  if hints > 0 then hint(hints) end
  for i = 1, #told - 2, 2 do call('XADD', P .. 'ev', '*', 'id', told[i], 'st', told[i + 1]) end
  event(told[#told - 1], told[#told]) -- the last one trims
  stored, all, work, grown, told, lines, line_names = 0, {}, {}, {}, {}, {}, {}
end

-- One look for all: that none of them was there before, nor is our own output, is what nearly always holds.
local ids, keys, names = {}, {}, {}
local k = 5
while k <= #ARGV do
  ids[#ids + 1], ids[#ids + 2] = P .. 't:' .. ARGV[k], P .. 'own:' .. ARGV[k + 9]
  keys[#keys + 1] = P .. 'd:' .. ARGV[k + 1]
  if not groups[ARGV[k + 2]] then groups[ARGV[k + 2]], names[#names + 1] = 0, ARGV[k + 2] end
  k = k + 12 + tonumber(ARGV[k + 11])
end
local some_id, some_key = call('EXISTS', unpack(ids)) > 0, call('EXISTS', unpack(keys)) > 0
for i, n in ipairs(call('HMGET', P .. 'grp', unpack(names))) do groups[names[i]] = tonumber(n or '0') end
local of_this_call = {} -- ids and dedup keys

-- A done task is joined while fresh, and while each of its targets still carries what it published:
-- otherwise A -> B -> A would end at B.
local function still_there(cur, k)
  local n = tonumber(ARGV[k + 11])
  if ARGV[k + 8] ~= '' then return false end
  local fin = tonumber(call('HGET', P .. 't:' .. cur, 'fin') or '0')
  if tonumber(ARGV[k + 7]) <= 0 or now - fin > tonumber(ARGV[k + 7]) or n == 0 then return false end
  for i = k + 12, k + 11 + n do
    if call('HGET', P .. 'pub:' .. ARGV[i], 'id') ~= cur then return false end
  end
  return true
end

-- An open task is joined unless it is being cancelled, or has already looked at the source tag (it took a
-- ticket, or names no digest and has started): it may have seen the tag before it moved.
local function join(cur, k, band)
  local f = call('HMGET', P .. 't:' .. cur, 'st', 'cxl', 'tk', 'b', 'q', 'g', 'r', 'seq', 'att')
  local st = f[1]
  local join = false
  if st == 'done' then
    join = still_there(cur, k)
  elseif st == 'ready' or st == 'delayed' then
    join = not f[2] and (ARGV[k + 10] ~= '1' or f[9] == '0')
  elseif st == 'running' then
    join = not f[2] and not f[3] and ARGV[k + 10] ~= '1'
  end
  if not join then return nil end
  call('HINCRBY', P .. 't:' .. cur, 'joins', 1)
  count('dup')
  if st ~= 'done' and band < tonumber(f[4]) then -- the more urgent of the two counts
    call('HSET', P .. 't:' .. cur, 'b', band)
    if st == 'ready' and band < tonumber(f[5]) then
      settle() -- it may be one of this call
      unready(cur, f[5], f[6], f[7])
      call('HSET', P .. 't:' .. cur, 'q', band)
      call('ZADD', P .. 'r:' .. band .. ':' .. f[6], f[8], cur)
      offer(band, f[6], f[7])
    end
  end
  return {'DUP', cur, st}
end

local function stand_in_lines(id, band, g, r, seq_text)
  local name = band .. ':' .. g
  local l = lines[name]
  if not l then
    l = {band = band, g = g, r = r}
    lines[name], line_names[#line_names + 1] = l, name
  end
  l[#l + 1], l[#l + 2] = seq_text, id
  work[#work + 1], work[#work + 2] = ms, id
end

local function enqueue(k)
  local id, dk, g, r, band = ARGV[k], ARGV[k + 1], ARGV[k + 2], ARGV[k + 3], ARGV[k + 4]
  local rec = P .. 't:' .. id
  if of_this_call[id] or (some_id and call('EXISTS', rec) == 1) then return 'OK' end -- sent again after a lost reply
  if some_id and ARGV[k + 9] ~= '' and call('EXISTS', P .. 'own:' .. ARGV[k + 9]) == 1 then
    count('echo')
    return 'ECHO'
  end
  local cur = (some_key or of_this_call[dk]) and call('GET', P .. 'd:' .. dk)
  local joined = cur and join(cur, k, tonumber(band))
  if joined then return joined end

  if open >= max_open then return 'FULL' end
  if groups[g] >= max_group then return 'FULLG' end

  local delay, seq_text = tonumber(ARGV[k + 6]), string.format('%d', seq + 1)
  local st = delay > 0 and 'delayed' or 'ready'
  -- every field stays within 64 bytes, so that the hash stays a listpack; the request is a key of its own
  call('HSET', rec, 'st', st, 'v', '1', 'b', band, 'q', band, 'g', g, 'r', r, 'dk', dk, 'seq', seq_text, 'tok', '0',
    'att', '0', 'max', ARGV[3], 'enq', ms, 'dl', deadline, 'n', string.format('%d', #ARGV[k + 5]))
  if ARGV[k + 8] ~= '' then call('HSET', rec, 'parent', ARGV[k + 8]) end
  call('SET', P .. 'p:' .. id, ARGV[k + 5])
  call('SET', P .. 'd:' .. dk, id)
  -- finer than ms, and a us later for each of a call: the list is in order of arrival
  local at = us + seq - first
  all[#all + 1], all[#all + 2] = string.format('%d.%03d', at / 1000, at % 1000), id
  if delay > 0 then
    call('HSET', rec, 'wait', '1')
    call('ZADD', P .. 'delay', string.format('%d', now + delay), id)
  else
    stand_in_lines(id, band, g, r, seq_text)
  end
  seq, stored, open = seq + 1, stored + 1, open + 1
  groups[g], grown[g] = groups[g] + 1, true
  of_this_call[id], of_this_call[dk] = true, true
  told[#told + 1], told[#told + 2] = id, st
  return 'OK'
end

local answers = {}
k = 5
while k <= #ARGV do
  local ok, answer = pcall(enqueue, k) -- a key of the wrong type is this request's trouble, not its neighbours'
  answers[#answers + 1] = ok and answer or {'ERR', type(answer) == 'table' and answer.err or tostring(answer)}
  k = k + 12 + tonumber(ARGV[k + 11])
end
settle()
return answers
