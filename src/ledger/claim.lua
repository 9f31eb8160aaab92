-- Asks for a job. KEYS: the job, then as places.lua says. ARGV: fingerprint, length of its key's name, owner, lease ms,
-- ttl ms, how many ms ago it came if this is the first delivery of its message ('' if it is not), then as places.lua says.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local job = redis.pcall('HMGET', KEYS[1], 'fingerprint', 'state', 'owner', 'until', 'found', 'progress', 'result', 'count',
  'reruns', 'anew')
if job.err then
  return job
end
local fingerprint, state, owner, till, found, progress, result, count, reruns, anew = unpack(job)
local until_then = string.format('%.0f', now + ARGV[4])

local place = read_place(7)
if not state then
  local limit = place and held_back(place, now)
  if limit then
    return {'limited', limit}
  end
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'claimed', 'owner', ARGV[3], 'until', until_then,
    'step', 0, 'found', 'new')
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  if place then
    take(place, now)
  end
  return {'new'}
end
-- Written by no script of this version: it must not be taken for a state that is known.
local known = state == 'done' and result
  or (state == 'claimed' or state == 'sending' or state == 'waiting' or state == 'released') and tonumber(till)
if not (fingerprint and known) then
  return {'unreadable'}
end
if fingerprint ~= ARGV[1] and string.sub(fingerprint, 1, ARGV[2]) == string.sub(ARGV[1], 1, ARGV[2]) then
  return {'another'}
end
if state == 'done' and anew and ARGV[6] ~= '' and now - ARGV[6] >= tonumber(anew) then
  -- Nothing was sent, and the producer has published the job again since it ended: another run begins.
  reruns = (tonumber(reruns) or 0) + 1
  local limit = place and held_back(place, now)
  if limit then
    return {'limited', limit, '', tostring(reruns)}
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'claimed', 'owner', ARGV[3], 'until', until_then,
    'step', 0, 'found', 'anew', 'reruns', reruns)
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  if place then
    take(place, now)
  end
  return {'anew', '', '', tostring(reruns)}
end
if state == 'done' then
  return {'done', result, '', reruns or ''}
end
if owner == ARGV[3] then
  -- The same asker, whose answer was lost.
  return {found, progress or '', count or '', reruns or ''}
end
if tonumber(till) > now then
  return {'held', string.format('%.0f', till - now)}
end
-- An attempt that was under way stays marked until the new owner has written what it makes of it.
local kept = state == 'sending' and 'sending' or 'claimed'
redis.call('HSET', KEYS[1], 'state', kept, 'owner', ARGV[3], 'until', until_then, 'step', 0, 'found', state)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
-- Whatever the limits say now: it took its place at its first claim.
if place then
  take(place, now)
end
return {state, progress or '', count or '', reruns or ''}
