-- hello: after each login: is this Redis's queue of our time, and may this user do all that the scripts do?
-- ARGV: 1 schema of this program
-- Replies: OK | SCHEMA n | WRITER n | NOPERM command (error)...
local probe = P .. 'probe'
local tries = {
  {'SET', probe, '1', 'EX', '10'}, {'GET', probe}, {'DEL', probe}, {'EXISTS', probe}, {'INCR', probe},
  {'EXPIRE', probe, '10'}, {'DEL', probe},
  {'HSET', probe, 'f', '1'}, {'HGET', probe, 'f'}, {'HMGET', probe, 'f'}, {'HGETALL', probe}, {'HINCRBY', probe, 'f', '1'},
  {'HLEN', probe}, {'HDEL', probe, 'f'},
  {'ZADD', probe, '1', 'm'}, {'ZRANGE', probe, '0', '0'}, {'ZCARD', probe}, {'ZSCORE', probe, 'm'}, {'ZREM', probe, 'm'},
  {'SADD', probe, 'm'}, {'SISMEMBER', probe, 'm'}, {'SRANDMEMBER', probe, '1'}, {'SCARD', probe}, {'SPOP', probe},
  {'SREM', probe, 'm'}, {'RPUSH', probe, 'x'}, {'LLEN', probe}, {'DEL', probe},
  {'XADD', probe, 'MAXLEN', '~', '10', '*', 'f', 'v'}, {'DEL', probe},
}
local refused = {'NOPERM'}
for _, t in ipairs(tries) do
  local ok = redis.pcall(unpack(t))
  if type(ok) == 'table' and ok.err then
    if not string.find(ok.err, "can't", 1, true) and not string.find(ok.err, 'NOPERM', 1, true) then
      return redis.error_reply(ok.err) -- a read-only replica, a full disk: not a question of rights
    end
    refused[#refused + 1] = t[1]
  end
end
if #refused > 1 then return refused end
local m = call('HMGET', KEYS[1], 'schema', 'min_writer')
if not m[1] then call('HSET', KEYS[1], 'schema', ARGV[1]) end
if m[1] and math.abs(tonumber(m[1]) - tonumber(ARGV[1])) > 1 then return {'SCHEMA', m[1]} end
if m[2] and tonumber(m[2]) > tonumber(ARGV[1]) then return {'WRITER', m[2]} end
return {'OK'}
