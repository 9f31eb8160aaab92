-- Moves in under a prefix, unless it is another's. KEYS: the record of whose it is.
-- ARGV: virtual host, queue, broker ('' where it is not known), the key of fingerprints if there is none yet.
local home = redis.pcall('HMGET', KEYS[1], 'vhost', 'queue', 'broker', 'key')
if home.err then
  return home
end
local vhost, queue, broker, key = unpack(home)
broker = broker or ''

if vhost and (vhost ~= ARGV[1] or queue ~= ARGV[2] or (broker ~= '' and ARGV[3] ~= '' and broker ~= ARGV[3])) then
  return {'another', vhost, queue or '', broker}
end
if ARGV[3] ~= '' then
  broker = ARGV[3]
end
-- Written each time: a server that takes no writes says so now, before a job relies on it.
redis.call('HSET', KEYS[1], 'vhost', ARGV[1], 'queue', ARGV[2], 'broker', broker, 'key', key or ARGV[4])
return {'ours', key or ARGV[4]}
