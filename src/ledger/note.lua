-- Writes down how far a job has come. KEYS: the job.
-- ARGV: fingerprint, owner, step, state, progress, lease ms (0: given back), ttl ms, delivery count or ''.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local job = redis.pcall('HMGET', KEYS[1], 'state', 'owner', 'step')
if job.err then
  return job
end
local state, owner, step = unpack(job)

if state == 'done' or (owner and owner ~= ARGV[2]) then
  return 0
end
if (tonumber(step) or 0) > tonumber(ARGV[3]) then
  -- Held up on its way; a later one is written.
  return 1
end
-- Written too where the store has lost the job: better than to know nothing.
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'owner', ARGV[2], 'step', ARGV[3], 'state', ARGV[4],
  'progress', ARGV[5], 'count', ARGV[8], 'until', string.format('%.0f', now + ARGV[6]))
if ARGV[4] == 'sending' then
  redis.call('HSET', KEYS[1], 'began', string.format('%.0f', now))
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
