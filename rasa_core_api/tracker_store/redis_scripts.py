"""What runs inside Redis: each script is one indivisible step.

A conversation is a list (`log`, one event's JSON an element) and a hash (`head`: `start`, the number of the list's
first event, and `row`, its place in the order of creation). `names` is a sorted set of sender ids by that place,
`rows` the counter behind it. Keys: head, log, names, rows. The last argument of a script that writes is how many
seconds of idleness a conversation lives for, 0 for ever.
"""

from __future__ import annotations

import hashlib

_TAIL = """
local function push(first, last)
  for i = first, last, 1000 do
    redis.call('RPUSH', KEYS[2], unpack(ARGV, i, math.min(i + 999, last)))
  end
end
local function expire(seconds)
  if seconds ~= '0' then
    redis.call('EXPIRE', KEYS[1], seconds)
    redis.call('EXPIRE', KEYS[2], seconds)
  end
end
local function create(sender)
  local row = redis.call('INCR', KEYS[4])
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'start', '0', 'row', row)
  redis.call('ZADD', KEYS[3], row, sender)
end
"""


class Script:
    """A script and the name Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


#: sender, end, life, events... -> {1, new end} or {0, end found} or {-1} for an unknown conversation
APPEND = Script(
    _TAIL
    + """
local start = redis.call('HGET', KEYS[1], 'start')
if not start then
  if ARGV[2] ~= '0' then return {-1} end
  create(ARGV[1])
  start = '0'
end
local found = tonumber(start) + redis.call('LLEN', KEYS[2])
if found ~= tonumber(ARGV[2]) then return {0, found} end
push(4, #ARGV)
expire(ARGV[3])
return {1, found + #ARGV - 3}
"""
)

#: sender, life, events... -> {start, end}
REPLACE = Script(
    _TAIL
    + """
local start = redis.call('HGET', KEYS[1], 'start')
if start then
  start = tonumber(start) + redis.call('LLEN', KEYS[2])
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'start', string.format('%.0f', start))
else
  create(ARGV[1])
  start = 0
end
push(3, #ARGV)
expire(ARGV[2])
return {start, start + #ARGV - 2}
"""
)

#: after, most events in one answer -> {start, end, events joined by line breaks}, or {} for an unknown conversation.
#: One text is parsed by the client many times faster than a list.
READ = Script(
    """
local start = redis.call('HGET', KEYS[1], 'start')
if not start then return {} end
start = tonumber(start)
local stop = start + redis.call('LLEN', KEYS[2])
local first = math.max(tonumber(ARGV[1]) - start, 0)
local events = ''
if tonumber(ARGV[2]) > 0 and first < stop - start then
  events = table.concat(redis.call('LRANGE', KEYS[2], first, first + tonumber(ARGV[2]) - 1), string.char(10))
end
return {start, stop, events}
"""
)

#: sender -> 1 where it was there
DELETE = Script(
    """
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[2])
return redis.call('DEL', KEYS[1])
"""
)

#: row to go on after, how many, prefix of heads -> {row of the last one looked at, names...}; those that expired go
NAMES = Script(
    """
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local last = ''
local names = {}
for i = 1, #found, 2 do
  last = found[i + 1]
  if redis.call('EXISTS', ARGV[3] .. found[i]) == 1 then
    names[#names + 1] = found[i]
  else
    redis.call('ZREM', KEYS[3], found[i])
  end
end
return {last, names}
"""
)
