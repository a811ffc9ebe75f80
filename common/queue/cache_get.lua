-- cache_get: what a source layer became, if this tenant may believe it.
-- ARGV: 1 key  2 host  3 tenant.  Replies: {entry, repository...} | nil
-- An entry serves a tenant that made it itself, or everyone once two tenants' own conversions agreed.
local f = call('HMGET', P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1], 'e', 'tn', 'rp', 'ok')
if not f[1] then return false end
if not f[4] and not string.find('\n' .. f[2] .. '\n', '\n' .. ARGV[3] .. '\n', 1, true) then return false end
local r = {f[1]}
for x in string.gmatch(f[3], '[^\n]+') do r[#r + 1] = x end
return r
