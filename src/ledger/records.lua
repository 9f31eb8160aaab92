-- What is recorded of jobs. It only reads. KEYS: the jobs. Says for each: 'none'; 'unreadable'; or 'record', then
-- fingerprint, state, owner, ms until its lease is over ('' without one), how many ms ago its last attempt began ('' if
-- none is known), progress, result, reruns, and in how many ms the record expires.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said = {}
for i, key in ipairs(KEYS) do
  local job = redis.pcall('HMGET', key, 'fingerprint', 'state', 'owner', 'until', 'began', 'progress', 'result', 'reruns')
  if job.err and not string.find(job.err, 'WRONGTYPE', 1, true) then
    return job
  end
  if job.err then
    said[i] = {'unreadable'}
  else
    local kept = redis.call('PTTL', key)
    local fingerprint, state, owner, till, began, progress, result, reruns = unpack(job)
    if kept == -2 then
      said[i] = {'none'}
    else
      till, began = tonumber(till), tonumber(began)
      said[i] = {'record', fingerprint or '', state or '', owner or '', till and string.format('%.0f', till - now) or '',
        began and string.format('%.0f', now - began) or '', progress or '', result or '', reruns or '',
        string.format('%.0f', kept)}
    end
  end
end
return said
