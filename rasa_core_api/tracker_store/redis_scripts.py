"""What runs inside Redis: each script is one indivisible step.

A conversation is a list (`log`, one event's JSON an element) and a hash (`head`: `start`, the number of the list's
first event, `row`, its place in the order of creation, and `at`, the time of its last event). Beside them it may have a
`claim` (its owner's name, which expires), `answers` (a hash from a request's key to `until base end done answer`) and
`reminders` (a hash from a name to JSON). For all conversations there are `names`, a sorted set of sender ids by `row`,
the counter `rows`, `due`, a sorted set of reminders by time, `feed`, a stream that names what each append added, and
`cursors`. `owned` are the conversations that one owner has claimed.

Every script gets the prefix of all keys as its only key. Times that are compared are those of the server.
"""

from __future__ import annotations

import hashlib

from rasa_core_api.tracker_store.turns import FEED_SIZE, FORGOTTEN

#: Appends that the feed remembers: where nobody keeps a cursor, and at the most.
KEPT, MOST = 10_000, 1_000_000

_COMMON = """
local prefix = KEYS[1]
local function key(kind, name) return prefix .. kind .. ':' .. name end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function text(number) return string.format('%.0f', number) end
-- start and end of a log, or nil
local function bounds(sender)
  local start = redis.call('HGET', key('head', sender), 'start')
  if not start then return nil end
  return tonumber(start), tonumber(start) + redis.call('LLEN', key('log', sender))
end
-- whether the conversation has another row than one that is expected
local function reborn(sender, row)
  return row ~= '' and row ~= redis.call('HGET', key('head', sender), 'row')
end
-- milliseconds of another owner's claim
local function held(sender, owner)
  local holder = redis.call('GET', key('claim', sender))
  if not holder or holder == owner then return 0 end
  return math.max(redis.call('PTTL', key('claim', sender)), 1)
end
local function unclaim(sender, owner)
  if redis.call('GET', key('claim', sender)) == owner then redis.call('DEL', key('claim', sender)) end
  redis.call('SREM', key('owned', owner), sender)
end
local function forget(sender, name, seq)
  local found = redis.call('HGET', key('reminders', sender), name)
  if not found or (seq and cjson.decode(found).seq ~= tonumber(seq)) then return 0 end
  redis.call('HDEL', key('reminders', sender), name)
  redis.call('ZREM', prefix .. 'due', sender .. string.char(0) .. name)
  return 1
end
local function forget_all(sender)
  for _, name in ipairs(redis.call('HKEYS', key('reminders', sender))) do forget(sender, name) end
end
"""

# what append and replace share; their arguments: sender, end (with start and row, where they have to be these), life,
# owner, done, at, request, base, answer, keep (ms), name and number of the reminder that fired, how many reminders,
# four arguments for each of them, events...
_WRITE = (
    _COMMON
    + f"local KEPT, MOST = {KEPT}, {MOST}\n"
    + """
local sender, life, owner, request = ARGV[1], ARGV[3], ARGV[4], ARGV[7]
local reminders = tonumber(ARGV[13])
local first = 14 + 4 * reminders
local count = #ARGV - first + 1
local function create()
  local row = redis.call('INCR', prefix .. 'rows')
  redis.call('DEL', key('log', sender))
  redis.call('HSET', key('head', sender), 'start', '0', 'row', row)
  redis.call('ZADD', prefix .. 'names', row, sender)
end
local function keep(base, last)
  local name, time = key('answers', sender), now()
  local most, size = redis.call('HLEN', name), 64
  while size < most do size = 2 * size end
  if size == most then -- what ran out is looked for as often as their number doubles
    local kept = redis.call('HGETALL', name)
    for i = 1, #kept, 2 do
      if tonumber(string.match(kept[i + 1], '^%d+')) <= time then redis.call('HDEL', name, kept[i]) end
    end
  end
  local ends = time + tonumber(ARGV[10])
  local value = text(ends) .. ' ' .. text(base) .. ' ' .. text(last) .. ' ' .. ARGV[5] .. ' ' .. ARGV[9]
  redis.call('HSET', name, request, value)
  if redis.call('PTTL', name) < ends - time then redis.call('PEXPIREAT', name, text(ends)) end
end
-- the events go in behind `start`, and what the note says with them; the conversation's row
local function write(start, base)
  local row = redis.call('HGET', key('head', sender), 'row') or ''
  for i = first, #ARGV, 1000 do
    redis.call('RPUSH', key('log', sender), unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  if count > 0 then
    redis.call('HSET', key('head', sender), 'at', ARGV[6])
    local most = redis.call('EXISTS', prefix .. 'cursors') == 1 and MOST or KEPT
    redis.call('XADD', prefix .. 'feed', 'MAXLEN', '~', most, '*', 's', sender, 'q', text(start), 'c', text(count),
      'r', row)
  end
  if ARGV[5] == '1' then unclaim(sender, owner) end
  if request ~= '' then keep(base, start + count) end
  for i = 14, first - 1, 4 do
    local value = '{"due":' .. ARGV[i + 1] .. ',"seq":' .. ARGV[i + 2] .. ',"channel":' .. ARGV[i + 3] .. '}'
    redis.call('HSET', key('reminders', sender), ARGV[i], value)
    redis.call('ZADD', prefix .. 'due', ARGV[i + 1], sender .. string.char(0) .. ARGV[i])
  end
  if ARGV[12] ~= '' then forget(sender, ARGV[11], ARGV[12]) end
  if life ~= '0' then
    for _, kind in ipairs({'head', 'log', 'reminders', 'answers'}) do redis.call('EXPIRE', key(kind, sender), life) end
  end
  return row
end
local left = held(sender, owner)
if left > 0 then return {-2, left} end
"""
)


class Script:
    """A script and the name Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


#: Fails where one of the commands of the others would, which could be after they have changed something
CHECK = Script(
    _COMMON
    + """
local name = prefix .. 'check'
local function try(...)
  redis.call(...)
  redis.call('DEL', name)
end
redis.call('DEL', name)
try('INCR', name)
try('SET', name, '1', 'PX', '1000')
try('RPUSH', name, '1')
try('SADD', name, '1')
redis.call('ZADD', name, '1', '1')
try('ZREM', name, '1')
redis.call('HSET', name, '1', '1', '2', '2')
for _, command in ipairs({'EXPIRE', 'PEXPIRE', 'PEXPIREAT'}) do redis.call(command, name, text(now() + 100000)) end
redis.call('HDEL', name, '1')
redis.call('DEL', name)
redis.call('SREM', name, '1')
redis.call('XADD', name, 'MAXLEN', '~', '10', '*', '1', '1')
redis.call('XRANGE', name, '(0-0', '+', 'COUNT', '1')
try('XTRIM', name, 'MINID', '~', '0-0')
return 1
"""
)

#: -> {1, new end, row}, {0, end found}, {-1} for an unknown conversation, {-2, milliseconds of another owner's claim}
APPEND = Script(
    _WRITE
    + """
local start, stop = bounds(sender)
local wanted, began, row = string.match(ARGV[2], '^(%d+) (%d*) (%d*)$')
if not start then
  if wanted ~= '0' then return {-1} end
  create()
  start, stop = 0, 0
end
local same = began == '' or start == tonumber(began)
if stop ~= tonumber(wanted) or not same or reborn(sender, row) then return {0, stop} end
local birth = write(stop, tonumber(ARGV[8]))
return {1, stop + count, birth ~= '' and birth or '0'}
"""
)

#: The end is 1 where answers are forgotten; the base counts from the new log's first event
#: -> {1, start, end} or {-2, milliseconds of another owner's claim}
REPLACE = Script(
    _WRITE
    + f"local FORGOTTEN = '{FORGOTTEN}'\n"
    + """
local start, stop = bounds(sender)
if start then
  redis.call('DEL', key('log', sender))
  redis.call('HSET', key('head', sender), 'start', text(stop))
  redis.call('HDEL', key('head', sender), 'at')
  forget_all(sender)
  if ARGV[2] == '1' then
    for _, request in ipairs(redis.call('HKEYS', key('answers', sender))) do
      local kept = string.match(redis.call('HGET', key('answers', sender), request), '^%d+ %d+ %d+ %d ')
      redis.call('HSET', key('answers', sender), request, kept .. FORGOTTEN)
    end
  end
else
  create()
  stop = 0
end
write(stop, stop + tonumber(ARGV[8]))
return {1, stop, stop + count}
"""
)

#: sender, after, most events in one answer, key of a request, owner
#: -> {milliseconds of another owner's claim, what the key left, start, end, events joined by line breaks, row}, without
#: the last four for an unknown conversation. One text is parsed by the client many times faster than a list.
LOOK = Script(
    _COMMON
    + """
local sender, request = ARGV[1], ARGV[4]
local earlier = ''
if request ~= '' then
  local found = redis.call('HGET', key('answers', sender), request)
  if found and tonumber(string.match(found, '^%d+')) > now() then earlier = found end
end
local left = held(sender, ARGV[5])
local start, stop = bounds(sender)
if not start then return {left, earlier} end
local first = math.max(tonumber(ARGV[2]) - start, 0)
local events = ''
if tonumber(ARGV[3]) > 0 and first < stop - start then
  local found = redis.call('LRANGE', key('log', sender), first, first + tonumber(ARGV[3]) - 1)
  events = table.concat(found, string.char(10))
end
return {left, earlier, start, stop, events, redis.call('HGET', key('head', sender), 'row') or '0'}
"""
)

#: sender -> 1 where it was there
DELETE = Script(
    _COMMON
    + """
local sender = ARGV[1]
forget_all(sender)
redis.call('ZREM', prefix .. 'names', sender)
redis.call('DEL', key('log', sender), key('claim', sender), key('answers', sender), key('reminders', sender))
return redis.call('DEL', key('head', sender))
"""
)

#: sender, end, owner, milliseconds, row or nothing
#: -> {1}, {0, end found}, {-1} or {-2, milliseconds of another owner's claim}
CLAIM = Script(
    _COMMON
    + """
local sender, owner = ARGV[1], ARGV[3]
local left = held(sender, owner)
if left > 0 then return {-2, left} end
local start, stop = bounds(sender)
if (stop or 0) ~= tonumber(ARGV[2]) or (stop and reborn(sender, ARGV[5])) then
  if stop then return {0, stop} end
  return {-1}
end
redis.call('SET', key('claim', sender), owner, 'PX', ARGV[4])
redis.call('SADD', key('owned', owner), sender)
redis.call('PEXPIRE', key('owned', owner), 100 * tonumber(ARGV[4]))
return {1}
"""
)

#: owner, milliseconds
RENEW = Script(
    _COMMON
    + """
local owner, lease = ARGV[1], ARGV[2]
for _, sender in ipairs(redis.call('SMEMBERS', key('owned', owner))) do
  if redis.call('GET', key('claim', sender)) == owner then
    redis.call('PEXPIRE', key('claim', sender), lease)
  else
    redis.call('SREM', key('owned', owner), sender)
  end
end
redis.call('PEXPIRE', key('owned', owner), 100 * tonumber(lease))
return 1
"""
)

#: owner, senders... (none: all)
RELEASE = Script(
    _COMMON
    + """
local owner = ARGV[1]
local senders = {unpack(ARGV, 2)}
if #senders == 0 then senders = redis.call('SMEMBERS', key('owned', owner)) end
for _, sender in ipairs(senders) do unclaim(sender, owner) end
return 1
"""
)

#: row to go on after, how many, time before which the last event was (or empty) -> {row of the last one looked at,
#: {names}}; those that expired go
NAMES = Script(
    _COMMON
    + """
local found = redis.call('ZRANGEBYSCORE', prefix .. 'names', '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local last = ''
local names = {}
local function idle(name)
  if ARGV[3] == '' then return true end
  local at = redis.call('HGET', key('head', name), 'at')
  if not at then
    local event = redis.call('LINDEX', key('log', name), -1)
    at = event and cjson.decode(event).timestamp or 0
  end
  return tonumber(at) < tonumber(ARGV[3])
end
for i = 1, #found, 2 do
  last = found[i + 1]
  if redis.call('EXISTS', key('head', found[i])) == 0 then
    redis.call('ZREM', prefix .. 'names', found[i])
  elseif idle(found[i]) then
    names[#names + 1] = found[i]
  end
end
return {last, names}
"""
)

#: time before which they are due, how many -> sender, name, JSON, sender, ...; those of conversations that expired go
DUE = Script(
    _COMMON
    + """
local answer = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local sender, name = string.match(member, '^(%Z*)%z(.*)$')
  local found = redis.call('HGET', key('reminders', sender), name)
  if found then
    answer[#answer + 1] = sender
    answer[#answer + 1] = name
    answer[#answer + 1] = found
  else
    redis.call('ZREM', prefix .. 'due', member)
  end
end
return answer
"""
)

#: sender -> name, JSON, name, ...
REMINDERS = Script(_COMMON + "return redis.call('HGETALL', key('reminders', ARGV[1]))")

#: sender, name -> JSON, or nothing
REMINDER = Script(_COMMON + "return redis.call('HGET', key('reminders', ARGV[1]), ARGV[2])")

#: sender, name, number of the event -> 1 where it was there
FORGET = Script(_COMMON + "return forget(ARGV[1], ARGV[2], ARGV[3])")

#: position to go on after, how many -> {position, sender, number, events joined by line breaks} each
FEED = Script(
    _COMMON
    + f"local FEED_SIZE = {FEED_SIZE}\n"
    + """
local answer, size = {}, 0
for _, entry in ipairs(redis.call('XRANGE', prefix .. 'feed', '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  local sender, seq, count = entry[2][2], tonumber(entry[2][4]), tonumber(entry[2][6])
  local start = bounds(sender)
  local events = ''
  if start and seq >= start and not reborn(sender, entry[2][8] or '') then
    local found = redis.call('LRANGE', key('log', sender), seq - start, seq - start + count - 1)
    events = table.concat(found, string.char(10))
  end
  answer[#answer + 1] = {entry[1], sender, text(seq), events}
  size = size + #events
  if size >= FEED_SIZE then break end
end
return answer
"""
)

#: position -> 1 where the feed was cut behind it; one from before the first append tells nothing until the feed is full
FEED_LOST = Script(
    _COMMON
    + f"local MOST = {MOST}\n"
    + """
local count = redis.call('XLEN', prefix .. 'feed')
if count == 0 or redis.call('XRANGE', prefix .. 'feed', '-', ARGV[1], 'COUNT', 1)[1] then return 0 end
return (ARGV[1] ~= '0-0' or count >= MOST) and 1 or 0
"""
)

#: -> position of the latest append
FEED_END = Script(
    _COMMON
    + """
local found = redis.call('XREVRANGE', prefix .. 'feed', '+', '-', 'COUNT', 1)
return found[1] and found[1][1] or '0-0'
"""
)

#: name -> position, or nothing
CURSOR = Script(_COMMON + "return redis.call('HGET', prefix .. 'cursors', ARGV[1])")

#: name, position; what every cursor is beyond is forgotten where there is much of it
SET_CURSOR = Script(
    _COMMON
    + f"local KEPT = {KEPT}\n"
    + """
redis.call('HSET', prefix .. 'cursors', ARGV[1], ARGV[2])
if redis.call('HLEN', prefix .. 'cursors') == 1 and redis.call('XLEN', prefix .. 'feed') > KEPT then
  redis.call('XTRIM', prefix .. 'feed', 'MINID', '~', ARGV[2])
end
return 1
"""
)

#: role, owner, milliseconds -> 1 where it is the owner's
HOLD = Script(
    _COMMON
    + """
local holder = redis.call('GET', key('role', ARGV[1]))
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', key('role', ARGV[1]), ARGV[2], 'PX', ARGV[3])
return 1
"""
)
