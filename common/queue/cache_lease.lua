-- cache_lease: may this task convert the layer, or do others do it now?
-- ARGV: 1 key  2 host  3 tenant  4 task.  Replies: 0 (ours, for 2 minutes) | ms after which to look again
-- One task a tenant; and no third tenant while two, having made it or being at it, may come to agree.
local k = P .. 'lc:' .. ARGV[2] .. ':' .. ARGV[1]
local others, seen = 0, {[ARGV[3]] = true}
for t in string.gmatch(call('HGET', k, 'tn') or '', '[^\n]+') do
  if not seen[t] then others, seen[t] = others + 1, true end
end
local leases = call('HGETALL', k .. ':l') -- tenant: until, task
for i = 1, #leases, 2 do
  local t = leases[i]
  local til, holder = string.match(leases[i + 1], '^(%d+) (.*)$')
  if tonumber(til) <= now then
    call('HDEL', k .. ':l', t)
  elseif t == ARGV[3] then
    if holder ~= ARGV[4] then return 1000 end
  elseif not seen[t] then
    others, seen[t] = others + 1, true
  end
end
if others >= 2 then return 1000 end
call('HSET', k .. ':l', ARGV[3], string.format('%.0f', now + 120000) .. ' ' .. ARGV[4])
call('EXPIRE', k .. ':l', '120')
return 0
