-- cache_put: a conversion made this blob of a source layer, or found it good.
-- ARGV: 1 key  2 host  3 tenant  4 task  5 entry  6 stored digest  7 repository.  Replies: nil
-- Anything else than before, be it the digest or what is said about the blob, replaces the entry: nobody's agreement
-- carries over.
local k = P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1]
local f = call('HMGET', k, 'dg', 'tn', 'rp', 'ok', 'e')
local tenants, repositories, ok = ARGV[3], {ARGV[7]}, false
if f[1] == ARGV[6] and f[5] == ARGV[5] then
  ok = f[4]
  tenants = f[2]
  if not string.find('\n' .. tenants .. '\n', '\n' .. ARGV[3] .. '\n', 1, true) then
    ok = '1'
    if #tenants < 1024 then tenants = tenants .. '\n' .. ARGV[3] end
  end
  for x in string.gmatch(f[3], '[^\n]+') do
    if x ~= ARGV[7] and #repositories < 16 then repositories[#repositories + 1] = x end
  end
end
call('DEL', k)
call('HSET', k, 'e', ARGV[5], 'dg', ARGV[6], 'tn', tenants, 'rp', table.concat(repositories, '\n'))
if ok then call('HSET', k, 'ok', '1') end
call('EXPIRE', k, '2592000')
call('HDEL', k .. ':l', ARGV[3])
return false
