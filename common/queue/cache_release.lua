-- cache_release: this task does not convert the layer (any more).
-- ARGV: 1 key  2 host  3 tenant  4 task.  Replies: nil
local k = P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1] .. ':l:' .. ARGV[3]
if call('GET', k) == ARGV[4] then call('DEL', k) end
return false
