-- Puts a result in the place of the one that is recorded, if it still is. KEYS: the job. ARGV: that one, the new one.
local job = redis.pcall('HMGET', KEYS[1], 'result')
if job.err then
  return job
end
if job[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'result', ARGV[2])
end
return 1
