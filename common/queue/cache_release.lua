-- cache_release: this task does not convert the layer (any more).
-- ARGV: 1 key  2 host  3 tenant  4 task.  Replies: nil
local k = P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1] .. ':l'
local lease = call('HGET', k, ARGV[3])
if lease and string.match(lease, ' (.*)$') == ARGV[4] then call('HDEL', k, ARGV[3]) end
return false
