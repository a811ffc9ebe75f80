-- pause: a registry asked for a rest; claim parks its groups, tick lets them go on.  Never shortens.
-- ARGV: 1 registry  2 ms
local key = P .. 'pause:' .. ARGV[1]
local to = now + tonumber(ARGV[2])
if tonumber(call('GET', key) or '0') < to then call('SET', key, string.format('%.0f', to), 'PX', ARGV[2]) end
return {'OK'}
