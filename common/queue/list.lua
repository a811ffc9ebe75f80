-- list: newest first.
-- ARGV: 1 rank to begin at  2 matches to step over  3 matches to give  4 records to look at
--       5 status  6 phase  7 part of the source ('' each: any)
-- Reply: next rank or -1, all records, matches seen, then views
local rank, skip, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local all = call('ZCARD', P .. 'all')
local any = ARGV[5] == '' and ARGV[6] == '' and ARGV[7] == ''
local status = {ready = 'PROCESSING', running = 'PROCESSING', delayed = 'PROCESSING', done = 'COMPLETED',
  failed = 'FAILED', cancelled = 'FAILED'}

local function phase(f) -- as task_phase
  local st = f[1]
  if st == 'ready' then return 'queued' end
  if st == 'running' then return f[2] and not f[6] and 'cancelling' or 'running' end
  if st == 'delayed' then return f[3] and 'waiting' or 'retrying' end
  if st == 'done' then return f[4] and 'skipped' or 'done' end
  if st == 'failed' then return f[5] and 'dead' or 'failed' end
  return st
end

local function matches(id)
  local f = call('HMGET', P .. 't:' .. id, 'st', 'cxl', 'wait', 'skip', 'dead', 'pub')
  if not f[1] or (ARGV[5] ~= '' and status[f[1]] ~= ARGV[5]) or (ARGV[6] ~= '' and phase(f) ~= ARGV[6]) then
    return false
  end
  if ARGV[7] == '' then return true end
  local given = string.match(call('GET', P .. 'p:' .. id) or '', '"given":"(.-)"')
  return given and string.find(given, ARGV[7], 1, true) and true or false
end

local out, seen = {-1, all, 0}, 0
local step = any and want or tonumber(ARGV[4])
if any then rank = rank + skip end
local ids = step > 0 and call('ZRANGE', P .. 'all', rank, rank + step - 1, 'REV') or {}
for i = 1, #ids do
  if any or matches(ids[i]) then
    seen = seen + 1
    if any or (seen > skip and seen - skip <= want) then
      local v = view(ids[i])
      if v then out[#out + 1] = v end
    end
  end
end
if not any and rank + #ids < all then out[1] = rank + #ids end
out[3] = any and all or seen
return out
