-- counts.  Reply: ready running delayed finished dead oldest-ms, then totals
local running = call('ZCARD', P .. 'lease')
local first = call('ZRANGE', P .. 'work', 0, 0, 'WITHSCORES')
local c = call('HMGET', P .. 'cnt', 'done', 'failed', 'cancelled', 'retry', 'stale', 'dup', 'expired', 'v',
  'crashed', 'echo', 'bytes', 'dead')
local out = {math.max(0, call('ZCARD', P .. 'work') - running), running, call('ZCARD', P .. 'delay'),
  call('ZCARD', P .. 'fin'), call('ZCARD', P .. 'dead'), first[2] and math.max(0, now - tonumber(first[2])) or 0}
c[8] = call('GET', P .. 'seq')
for i = 1, 12 do out[#out + 1] = tonumber(c[i] or '0') end
return out
