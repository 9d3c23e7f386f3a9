-- A worker says that it lives. Where this server has begun anew (or another took its place, with the data of then or with none), or
-- nobody has been heard of for longer than leases last, a time of grace begins: all tell again what they hold, and nothing is given.
--
-- KEYS: a hash: "run" the server's run_id, "beat" when somebody was last heard of, "until" the end of the time of grace; a hash of
--       workers and when each was heard of.
-- ARGV: run_id, worker, grace (ms), longest silence (ms)
-- Returns: ms of grace left, live workers, the end of the last time of grace: the epoch's name, greater than any before it.

local run_id, worker, grace, silence = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call("TIME")
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local known = redis.call("HMGET", KEYS[1], "run", "beat", "until")
local til = tonumber(known[3] or 0)
if known[1] ~= run_id or now - tonumber(known[2] or 0) > silence then
    til = now + grace
end
redis.call("HSET", KEYS[1], "run", run_id, "beat", string.format("%.0f", now), "until", string.format("%.0f", til))
redis.call("HSET", KEYS[2], worker, string.format("%.0f", now))
local live = 0
local beats = redis.call("HGETALL", KEYS[2])
for i = 1, #beats, 2 do
    if now - tonumber(beats[i + 1]) > silence then
        redis.call("HDEL", KEYS[2], beats[i])
    else
        live = live + 1
    end
end
return { math.max(0, til - now), live, til }
