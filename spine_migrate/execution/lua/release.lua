-- KEYS: lock. ARGV: fence. Gives 1 where the lock was still that of the fence.
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
    return redis.call('DEL', KEYS[1])
end
return 0
