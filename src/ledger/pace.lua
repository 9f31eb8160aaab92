-- What the workers tell each other of their pace: who is there, whose turn it is, and that eSMS throttles. KEYS: the
-- record. ARGV, times in microseconds: 1 worker, 2 how long it counts as present (0: it leaves), 3 time between two calls
-- of all workers, 4 turns wanted, 5 not sooner than so long from now, 6 whether it gave itself turns while it was alone
-- (1 or 0), 7 how long all then go on alone, 8 name of a cut ('' for none), 9 how long ago the throttled call began,
-- 10 for how long calls are held, 11 for how long the record is kept.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local pace = redis.pcall('HMGET', KEYS[1], 'clock', 'workers', 'next', 'together', 'cut', 'cut_at', 'held')
if pace.err then
  return pace
end
-- After a failover the clock may be behind: what was ahead stays as far ahead as it was.
local back = math.max((tonumber(pace[1]) or now) - now, 0)
local function moment(text)
  return math.max((tonumber(text) or 0) - back, 0)
end
local function written(number)
  return string.format('%.0f', number)
end
local next, together, cut, cut_at, held = moment(pace[3]), moment(pace[4]), pace[5] or '', moment(pace[6]), moment(pace[7])

local present, rank = {}, 0
for worker, till in string.gmatch(pace[2] or '', '(%S+):(%d+)') do
  if worker ~= ARGV[1] and moment(till) > now then
    present[#present + 1] = worker .. ':' .. written(moment(till))
    rank = rank + (worker < ARGV[1] and 1 or 0)
  end
end
if tonumber(ARGV[2]) > 0 then
  present[#present + 1] = ARGV[1] .. ':' .. written(now + ARGV[2])
end

if ARGV[8] ~= '' then
  -- A call that began before the last cut belongs to the same burst.
  if cut ~= ARGV[8] and now - ARGV[9] > cut_at then
    cut, cut_at = ARGV[8], now
  end
  held = math.max(held, now + ARGV[10])
end

-- Others may still be alone, and their shares are not free yet.
if ARGV[6] == '1' and together <= now then
  together = now + ARGV[7]
end
local wanted, first = tonumber(ARGV[4]), 0
if together > now then
  wanted = 0
end
if wanted > 0 then
  -- A worker that was alone until then may have given itself one more turn.
  first = math.max(next, now, now + ARGV[5], together + #present * ARGV[3])
  next = first + wanted * ARGV[3]
end

redis.call('HSET', KEYS[1], 'clock', written(now), 'workers', table.concat(present, ' '), 'next', written(next),
  'together', written(together), 'cut', cut, 'cut_at', written(cut_at), 'held', written(held))
redis.call('PEXPIRE', KEYS[1], written(math.ceil((ARGV[11] + math.max(next - now, 0)) / 1000)))
return {now, #present, rank, math.max(together - now, 0), first, wanted, cut, now - cut_at, math.max(held - now, 0)}
