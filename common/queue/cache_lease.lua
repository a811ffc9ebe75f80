-- cache_lease: may this task convert the layer, or does another one do it now?
-- ARGV: 1 key  2 host  3 tenant  4 task.  Replies: 0 (ours, for 2 minutes) | ms after which to look again
-- Per tenant: until two of them agreed, each makes its own.
local k = P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1] .. ':l:' .. ARGV[3]
local holder = call('GET', k)
if holder and holder ~= ARGV[4] then return 1000 end
call('SET', k, ARGV[4], 'PX', '120000')
return 0
