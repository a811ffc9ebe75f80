-- cache_forget: the entry was wrong, or its blob is gone.
-- ARGV: 1 key  2 host.  Replies: nil
call('DEL', P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1])
return false
