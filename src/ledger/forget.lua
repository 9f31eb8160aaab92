-- Forgets what is counted for one number. KEYS: the number's places. Says how many there were, and how many of them
-- were of jobs in flight.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local flying = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
local said = {redis.call('ZCARD', KEYS[1]), #flying}
redis.call('DEL', KEYS[1])
return said
