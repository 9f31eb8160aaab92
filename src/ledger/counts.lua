-- What is counted for a number and for the groups that it belongs to. Only what is over is removed, as a claim does.
-- KEYS: the record of whose the prefix is (not read), then as places.lua says. ARGV: as places.lua says.
-- Says numbers: the places of the number, those in flight; then for each rule: how many are counted, how many of them
-- are in flight, and in how many ms there is a place (0: there is one now).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local place = read_place(1)

local places = redis.call('ZRANGE', place.number, 0, -1, 'WITHSCORES')
local function counted_since(start)
  local counted, flying = 0, 0
  for i = 2, #places, 2 do
    local at = tonumber(places[i])
    counted = counted + (at > start and 1 or 0)
    flying = flying + (at > now and 1 or 0)
  end
  return counted, flying
end

local said = {counted_since(now - place.keep)}
local function say(counted, flying, free)
  said[#said + 1] = counted
  said[#said + 1] = flying
  said[#said + 1] = math.max(0, (free or now) - now)
end

for _, rule in ipairs(place.rules) do
  local counted, flying = counted_since(now - rule.window)
  local at = redis.call('ZREVRANGE', place.number, rule.most - 1, rule.most - 1, 'WITHSCORES')[2]
  say(counted, flying, at and tonumber(at) + rule.window)
end
for _, group in ipairs(place.groups) do
  forget_lost(group, now)
  local flying = redis.call('ZCARD', group.flying)
  for _, rule in ipairs(group.rules) do
    -- It also removes the parts that are over.
    local free = free_at(group, rule, now)
    local counted = flying
    for i, sent in ipairs(redis.call('HGETALL', rule.key)) do
      counted = counted + (i % 2 == 0 and tonumber(sent) or 0)
    end
    say(counted, flying, free)
  end
end
return said
