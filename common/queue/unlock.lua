-- unlock: the PUT was answered, whatever the answer.  Only the attempt that holds the lock may say so.
-- ARGV: 1 nonce  2 hash of the target
if call('GET', P .. 'lock:' .. ARGV[2]) == ARGV[1] then call('DEL', P .. 'lock:' .. ARGV[2]) end
if call('HGET', P .. 'pub:' .. ARGV[2], 'held') == ARGV[1] then
  call('HDEL', P .. 'pub:' .. ARGV[2], 'held', 'hid')
end
return {'OK'}
