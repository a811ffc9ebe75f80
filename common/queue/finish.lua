-- finish: the one accepted result of an attempt: an end, or another try.
-- ARGV: 1 id  2 nonce  3 outcome (done failed cancelled retry release wait crashed)  4 code  5 reason
--       6 delay ms  7 fresh ms  8 '1': skipped  9 source size  10 target size  11 attempt JSON  12 result JSON
--       13 max_crash  14..18 retention
-- Replies: OK st ['replay'] | STALE st | GONE | BAD outcome
local id, nonce, oc = ARGV[1], ARGV[2], ARGV[3]
local rec = P .. 't:' .. id
local known = {done = 1, failed = 1, cancelled = 1, retry = 1, release = 1, wait = 1, crashed = 1}
if not known[oc] then return {'BAD', oc} end
local f = call('HMGET', rec, 'st', 'own', 'r', 'g', 'b', 'dk', 'max', 'cxl', 'pub', 'dl', 'seq', 'enq', 'fn', 'fo', 'code')
if not f[1] then return {'GONE'} end
-- I2, I3: only the running attempt's nonce may end it, and only once; the same call again gets the same answer
if f[1] ~= 'running' or f[2] ~= nonce then
  local was = f[13] == nonce and string.match(f[14], '^' .. oc .. ':(%l+)$')
  if was then return {'OK', was, 'replay'} end
  count('stale')
  return {'STALE', f[1]}
end
local r, g, b, dk = f[3], f[4], f[5], f[6]
local deadline = tonumber(f[10])
local delay = tonumber(ARGV[6])
local flagged = f[8] and not f[9]

leave_running(id, nonce, r)
local st, dead, lane = oc, false, b
if oc == 'retry' then
  if call('HINCRBY', rec, 'fl', 1) >= tonumber(f[7]) then dead = true end
elseif oc == 'crashed' then
  if call('HINCRBY', rec, 'crash', 1) >= tonumber(ARGV[13]) then dead = true end
  lane = '0' -- the recovery lane: ahead of everything else, at its old place
elseif oc == 'release' or oc == 'wait' then
  call('HINCRBY', rec, 'att', -1) -- nobody's fault
end
if oc == 'retry' or oc == 'crashed' or oc == 'wait' or oc == 'release' then
  if oc ~= 'release' and now >= deadline then dead = true end
  if flagged then
    st, dead = 'cancelled', false
  elseif dead then
    st = 'failed'
  elseif oc == 'retry' or oc == 'wait' or delay > 0 then
    st = 'delayed'
  else
    st = 'ready'
  end
end

add_attempt(id, ARGV[11])
local code, reason = ARGV[4], ARGV[5]
if st == 'cancelled' then code, reason = 'cancelled', 'cancelled' end
local set = {'fn', nonce, 'fo', oc .. ':' .. st}
if oc ~= 'release' or st ~= 'ready' then
  if code ~= '' then
    set[#set + 1] = 'code'
    set[#set + 1] = code
  elseif f[15] then
    call('HDEL', rec, 'code')
  end
  put_text(id, 'e', reason)
end

if st == 'delayed' then
  call('HSET', rec, 'st', 'delayed', 'own', '', unpack(set))
  if oc == 'retry' then call('HDEL', rec, 'wait') else call('HSET', rec, 'wait', '1') end
  call('ZREM', P .. 'work', id)
  call('ZADD', P .. 'delay', math.max(now, math.min(now + delay, deadline)), id) -- one more try at the deadline
  count(oc)
  event(id, 'delayed')
elseif st == 'ready' then
  call('HSET', rec, unpack(set))
  make_ready(id, lane, g, r, f[11], f[12])
  count(oc)
  event(id, 'ready')
else
  if ARGV[9] ~= '0' then set[#set + 1] = 'ss' set[#set + 1] = ARGV[9] end
  if ARGV[10] ~= '0' then set[#set + 1] = 'ts' set[#set + 1] = ARGV[10] end
  if ARGV[8] == '1' then set[#set + 1] = 'skip' set[#set + 1] = '1' end
  call('HSET', rec, unpack(set))
  if ARGV[12] ~= '' then put_text(id, 'r', ARGV[12]) end
  local n = end_task(id, st, dead, g, dk, tonumber(ARGV[7]))
  -- by count at once, by age and bytes now and then (and in tick)
  if n % 8 == 0 or call('ZCARD', P .. 'fin') > tonumber(ARGV[14]) or call('ZCARD', P .. 'dead') > tonumber(ARGV[16]) then
    evict(14, 4)
  end
end
return {'OK', st}
