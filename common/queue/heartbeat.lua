-- heartbeat: extend leases, many in one call; deliver cancellations.
-- ARGV: 1 lease ms, then triples: id nonce progress ('' leaves the old one)
-- Replies, one per triple: OK | CANCEL (lease extended, stop the work) | LOST | GONE
local out = {}
for i = 2, #ARGV, 3 do
  local rec = P .. 't:' .. ARGV[i]
  local f = call('HMGET', rec, 'st', 'own', 'cxl', 'pub')
  if f[1] == 'running' and f[2] == ARGV[i + 1] then
    call('ZADD', P .. 'lease', 'XX', 'GT', now + tonumber(ARGV[1]), ARGV[i])
    if ARGV[i + 2] ~= '' then call('HSET', rec, 'prog', ARGV[i + 2]) end
    out[#out + 1] = f[3] and not f[4] and 'CANCEL' or 'OK'
  else
    out[#out + 1] = f[1] and 'LOST' or 'GONE'
  end
end
return out
