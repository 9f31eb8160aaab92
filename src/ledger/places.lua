-- The places of a job under the limits. src/limits/counted.rs does the same in memory, and says why.
-- KEYS from 2 on: the number's places; for each group: its jobs in flight, and for each of its rules: OTPs by part.
-- ARGV from a given one on: the job, ms until its deadline (less than 0 once it has passed), how many places of a number are kept, and for how long (ms);
-- then for the number and for each group: how many rules, and for each rule: the most, and the window (ms).
local PARTS, ENDED_AFTER = 60, 60000

local function int(n)
  return string.format('%.0f', n)
end

local function keep_for(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, int(ms))
  end
end

local function read_rules(at)
  local rules, n = {}, tonumber(ARGV[at])
  for i = 1, n do
    rules[i] = {most = tonumber(ARGV[at + 2 * i - 1]), window = tonumber(ARGV[at + 2 * i])}
    rules[i].width = math.max(1, math.floor(rules[i].window / PARTS))
  end
  return rules, at + 2 * n + 1
end

-- nil if the job counts for nothing.
local function read_place(at)
  if not ARGV[at] then
    return nil
  end
  local place = {job = ARGV[at], left = tonumber(ARGV[at + 1]), most = tonumber(ARGV[at + 2]),
    keep = tonumber(ARGV[at + 3]), number = KEYS[2], groups = {}}
  local key
  place.rules, at = read_rules(at + 4)
  key = 3
  while ARGV[at] do
    local group = {flying = KEYS[key]}
    group.rules, at = read_rules(at)
    for i, rule in ipairs(group.rules) do
      rule.key = KEYS[key + i]
    end
    key = key + #group.rules + 1
    place.groups[#place.groups + 1] = group
  end
  return place
end

local function count_sent(group, sent)
  for _, rule in ipairs(group.rules) do
    redis.call('HINCRBY', rule.key, int(math.floor(sent / rule.width)), 1)
    keep_for(rule.key, rule.window + 2 * rule.width)
  end
end

-- A job that must have ended, and of which nobody said how, counts as sent at its deadline.
local function forget_lost(group, now)
  local lost = redis.call('ZRANGEBYSCORE', group.flying, '-inf', int(now - ENDED_AFTER), 'WITHSCORES')
  for i = 1, #lost, 2 do
    redis.call('ZREM', group.flying, lost[i])
    count_sent(group, tonumber(lost[i + 1]))
  end
end

-- When there is a place again under this rule of a group; nil if there is one now.
local function free_at(group, rule, now)
  local otps = redis.call('HGETALL', rule.key)
  local parts, counted = {}, redis.call('ZCARD', group.flying)
  for i = 1, #otps, 2 do
    local part, sent = tonumber(otps[i]), tonumber(otps[i + 1])
    local left = (part + 1) * rule.width + rule.window
    if left <= now then
      redis.call('HDEL', rule.key, otps[i])
    else
      parts[#parts + 1] = {left = left, sent = sent}
      counted = counted + sent
    end
  end
  local more = counted + 1 - rule.most
  if more <= 0 then
    return nil
  end
  table.sort(parts, function(a, b) return a.left < b.left end)
  for _, part in ipairs(parts) do
    more = more - part.sent
    if more <= 0 then
      return part.left
    end
  end
  local deadline = tonumber(redis.call('ZRANGE', group.flying, more - 1, more - 1, 'WITHSCORES')[2] or now)
  return (math.floor(math.max(deadline, now) / rule.width) + 1) * rule.width + rule.window
end

-- The rule that holds the job back longest, as 'rule:ms:depends on a job in flight'. nil if none does, or if the job
-- has its place already.
local function held_back(place, now)
  if redis.call('ZSCORE', place.number, place.job) then
    return nil
  end
  local rule, free, in_flight = nil, now, 1
  local n = 0
  for _, found in ipairs(place.rules) do
    n = n + 1
    local at = tonumber(redis.call('ZREVRANGE', place.number, found.most - 1, found.most - 1, 'WITHSCORES')[2])
    if at and at + found.window > now then
      -- The end of a job in flight helps only where nothing else holds this one back.
      in_flight = at > now and in_flight or 0
      if at + found.window > free then
        rule, free = n, at + found.window
      end
    end
  end
  for _, group in ipairs(place.groups) do
    forget_lost(group, now)
    for _, found in ipairs(group.rules) do
      n = n + 1
      local at = free_at(group, found, now)
      if at and at > now then
        in_flight = 0
        if at > free then
          rule, free = n, at
        end
      end
    end
  end
  return rule and int(rule) .. ':' .. int(free - now) .. ':' .. in_flight
end

local function keep_number(place, at, now)
  redis.call('ZADD', place.number, int(at), place.job)
  redis.call('ZREMRANGEBYRANK', place.number, 0, -place.most - 1)
  keep_for(place.number, math.max(at, now) - now + place.keep)
end

-- The job takes its place. In flight it counts from its deadline on.
local function take(place, now)
  keep_number(place, now + place.left, now)
  for _, group in ipairs(place.groups) do
    redis.call('ZADD', group.flying, int(now + place.left), place.job)
    keep_for(group.flying, place.left + ENDED_AFTER + place.keep)
  end
end

-- The job has ended. `sent` is the time of its last attempt, or nil if certainly nothing was sent. Says whether the
-- number had been sent an OTP before.
local function settle(place, sent, now)
  redis.call('ZREM', place.number, place.job)
  redis.call('ZREMRANGEBYSCORE', place.number, '-inf', int(now - place.keep))
  local seen = redis.call('ZCARD', place.number) == 0 and 'new' or 'known'
  if sent then
    keep_number(place, sent, now)
  end
  for _, group in ipairs(place.groups) do
    redis.call('ZREM', group.flying, place.job)
    if sent then
      count_sent(group, sent)
    end
  end
  return seen
end

