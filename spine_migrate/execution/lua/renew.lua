-- KEYS: lock. ARGV: fence, milliseconds. Gives 1 where the lock is still that of the fence.
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
