-- What SET NX PX does, and in the same step: the holder's own lock is taken again, and the fence.
-- KEYS: lock, last fence. ARGV: holder, milliseconds. Gives the fence as text (a Lua number would be rounded in transit
-- where it is large), or nothing where another has the lock.
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, string.find(value, ':', 1, true) + 1) ~= ARGV[1] then
    return false
end
-- The clock is the floor, so that a server that lost the last fences, or all of them, still gives larger ones.
local last = redis.call('GET', KEYS[2])
local now = redis.call('TIME')
local floor = now[1] * 1000000 + now[2]
local fence = string.format('%.0f', math.max(floor, (last and tonumber(last) or 0) + 1))
redis.call('SET', KEYS[2], fence)
redis.call('SET', KEYS[1], fence .. ':' .. ARGV[1], 'PX', ARGV[2])
return fence
