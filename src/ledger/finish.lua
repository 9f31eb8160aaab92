-- Writes down how a job ended. An earlier result stays, unless this one says more. KEYS: the job, then as
-- places.lua says.
-- ARGV: fingerprint, length of its key's name, owner ('' for whoever holds it), result, ttl ms, whether a producer's
-- repeat tries the job anew (1 or 0), how often it was tried anew before, whether an OTP went out or may have (1 or 0),
-- how many ms ago the last attempt that the worker knows of began ('' if it knows none), then as places.lua says.
local time = redis.call('TIME')
local job = redis.pcall('HMGET', KEYS[1], 'fingerprint', 'state', 'owner', 'result', 'reruns', 'anew', 'began', 'step',
  'progress')
if job.err then
  return job
end
local fingerprint, state, owner, result, reruns, anew, began, step, progress = unpack(job)
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local runs = math.max(tonumber(reruns) or 0, tonumber(ARGV[7]))

if fingerprint and fingerprint ~= ARGV[1] and string.sub(fingerprint, 1, ARGV[2]) == string.sub(ARGV[1], 1, ARGV[2]) then
  -- Another job's by now, or all along: its record is not touched.
  return {'recorded'}
end
-- A result by which nothing was sent gives way to one that says more, and to that of a later run.
local says_more = anew and (ARGV[6] == '0' or runs > (tonumber(reruns) or 0))
if state == 'done' and result and not says_more then
  return {'already', result, reruns or ''}
end
if owner and owner ~= ARGV[3] and ARGV[3] ~= '' then
  -- A claim keeps the mark of the attempt before it, with step 0: that one is not the owner's.
  local is_marked = state == 'sending' and (tonumber(step) or 0) > 0
  return {'held', is_marked and '1' or '0', progress or ''}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'done', 'result', ARGV[4])
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[1], 'anew', string.format('%.0f', now))
end
if runs > 0 then
  redis.call('HSET', KEYS[1], 'reruns', runs)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local place = read_place(10)
if not place then
  return {'recorded'}
end
local known = math.max(tonumber(began) or 0, ARGV[9] ~= '' and now - ARGV[9] or 0)
local sent = nil
if ARGV[8] == '1' then
  -- Nobody knows when, but not after its deadline.
  sent = known > 0 and known or math.min(now, now + place.left)
end
return {'recorded', settle(place, sent, now)}
