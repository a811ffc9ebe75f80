-- fsck: one page of one index, or the sums.  Each entry is looked at in one atomic step.
-- ARGV: 1 index (all work delay lease fin dead; sums)  2 rank  3 page  4 '1': repair
-- Reply: entries seen, then findings
local index, repair = ARGV[1], ARGV[4] == '1'
local out = {0}
local function found(text) if #out < 200 then out[#out + 1] = text end end
local function has(key, id) return call('ZSCORE', P .. key, id) end

if index == 'sums' then
  local run, ids = {}, call('ZRANGE', P .. 'lease', 0, 9999)
  for i = 1, #ids do
    local r = call('HGET', P .. 't:' .. ids[i], 'r')
    if r then run[r] = (run[r] or 0) + 1 end
  end
  local h = call('HGETALL', P .. 'run')
  for i = 1, #h, 2 do
    if tonumber(h[i + 1]) ~= (run[h[i]] or 0) then
      found('run[' .. h[i] .. '] is ' .. h[i + 1] .. ', running are ' .. (run[h[i]] or 0))
      if repair then
        if run[h[i]] then call('HSET', P .. 'run', h[i], run[h[i]]) else call('HDEL', P .. 'run', h[i]) end
      end
    end
    run[h[i]] = nil
  end
  for r, n in pairs(run) do
    found('run[' .. r .. '] is missing, running are ' .. n)
    if repair then call('HSET', P .. 'run', r, n) end
  end
  h = call('HGETALL', P .. 'claims')
  for i = 1, #h, 2 do
    local f = call('HMGET', P .. 't:' .. h[i + 1], 'st', 'own')
    if f[1] ~= 'running' or f[2] ~= h[i] then
      found('claims: ' .. h[i + 1] .. ' is not running under that nonce')
      if repair then call('HDEL', P .. 'claims', h[i]) end
    end
  end
  local open = call('ZCARD', P .. 'work') + call('ZCARD', P .. 'delay')
  if open <= 5000 then
    local grp = {}
    for _, key in ipairs({'work', 'delay'}) do
      ids = call('ZRANGE', P .. key, 0, -1)
      for i = 1, #ids do
        local g = call('HGET', P .. 't:' .. ids[i], 'g')
        if g then grp[g] = (grp[g] or 0) + 1 end
      end
    end
    h = call('HGETALL', P .. 'grp')
    for i = 1, #h, 2 do
      if tonumber(h[i + 1]) ~= (grp[h[i]] or 0) then
        found('grp[' .. h[i] .. '] is ' .. h[i + 1] .. ', open are ' .. (grp[h[i]] or 0))
        if repair then
          if grp[h[i]] then call('HSET', P .. 'grp', h[i], grp[h[i]]) else call('HDEL', P .. 'grp', h[i]) end
        end
      end
      grp[h[i]] = nil
    end
    for g, n in pairs(grp) do
      found('grp[' .. g .. '] is missing, open are ' .. n)
      if repair then call('HSET', P .. 'grp', g, n) end
    end
  end
  local c = call('HMGET', P .. 'cnt', 'v', 'done', 'failed', 'cancelled', 'lostrec')
  c[1] = call('GET', P .. 'seq') -- every accepted task has one
  for i = 1, 5 do c[i] = tonumber(c[i] or '0') end
  if c[1] ~= open + c[2] + c[3] + c[4] + c[5] then
    found('accepted ' .. c[1] .. ' is not open ' .. open .. ' + done ' .. c[2] .. ' + failed ' .. c[3] ..
      ' + cancelled ' .. c[4] .. ' + lost ' .. c[5])
    if repair then call('HINCRBY', P .. 'cnt', 'lostrec', c[1] - open - c[2] - c[3] - c[4] - c[5]) end
  end
  return out
end

local function check(id)
  local f = call('HMGET', P .. 't:' .. id, 'st', 'q', 'g', 'r', 'seq', 'enq', 'own', 'dead', 'fin')
  local st = f[1]
  if not st then
    found(index .. ': ' .. id .. ' has no record')
    if repair then
      call('ZREM', P .. index, id)
      call('ZREM', P .. 'all', id)
      call('DEL', P .. 'p:' .. id, P .. 'x:' .. id)
    end
    return
  end
  local want = {ready = 'work', running = 'work', delayed = 'delay'}
  local home = want[st] or (f[8] and 'dead' or 'fin')
  if index ~= 'all' then
    if index ~= home and not (index == 'lease' and st == 'running') then
      found(index .. ': ' .. id .. ' is ' .. st)
      if repair then call('ZREM', P .. index, id) end
    end
    if not has('all', id) then
      found(index .. ': ' .. id .. ' is not in the list of all')
      if repair then call('ZADD', P .. 'all', f[6] or now, id) end
    end
    return
  end
  if not has(home, id) then
    found(st .. ' task ' .. id .. ' is not in ' .. home)
    if repair then call('ZADD', P .. home, home == 'work' and f[6] or f[9] or now, id) end
  end
  if st == 'running' then
    if not has('lease', id) then
      found('running task ' .. id .. ' has no lease')
      if repair then call('ZADD', P .. 'lease', now, id) end
    end
    if call('HGET', P .. 'claims', f[7]) ~= id then
      found('running task ' .. id .. ' is not in claims')
      if repair then call('HSET', P .. 'claims', f[7], id) end
    end
  elseif st == 'ready' then
    local q, g, r = f[2] or '1', f[3], f[4]
    if not has('r:' .. q .. ':' .. g, id) then
      found('ready task ' .. id .. ' is not in its group')
      if repair then call('ZADD', P .. 'r:' .. q .. ':' .. g, f[5], id) end
    end
    if not has('ring:' .. q, g) and call('SISMEMBER', P .. 'park:' .. r, q .. ':' .. g) == 0 then
      found('group ' .. g .. ' of band ' .. q .. ' is neither on the ring nor parked')
      if repair then offer(q, g, r) end
    end
  end
end

local ids = call('ZRANGE', P .. index, ARGV[2], tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1)
out[1] = #ids
for i = 1, #ids do check(ids[i]) end
return out
