-- One worker tells what it holds of some of a tenant's limits, and is given slices of them. gateway/policy/pool.py and window.py are
-- the same in Python; a test holds the two to each other.
--
-- KEYS: a hash for each limit: "w" its window, "o" what is owed, "l" what only the ledger knows to be spent, "e" in which epoch that
--       was last asked, "h:<worker>" "<amount> <number> <until, ms> <settled>".
-- ARGV: worker, number, live workers, zone offset (ms), ms ahead of the clock (0 but in tests), dead workers (joined by commas),
--       then for each limit: period, phase (ms), limit, window, told, need, how long it lasts (ms), settled, what the ledger knows
--       (-1 if it was not read yet), of which window, the epoch
-- Returns the time in ms, and for each limit: window, ms left, slice, left.

local MINUTE, DAY = 60000, 86400000
local PER_LIMIT = 11
local worker, number, workers = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local offset, ahead, dead = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local clock = redis.call("TIME")
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + ahead

local function month_of(day)
    local shifted = day + 719468
    local era = math.floor(shifted / 146097)
    local of_era = shifted - era * 146097
    local year = math.floor(
        (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local from_march = math.floor((5 * of_year + 2) / 153)
    return (year + era * 400) * 12 + from_march + 2
end

local function first_day_of(month)
    local from_march = month - 2
    local year = math.floor(from_march / 12)
    local era = math.floor(year / 400)
    local of_era = year - era * 400
    local of_year = math.floor((153 * (from_march - year * 12) + 2) / 5)
    return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

-- The window's number, the ms that it still runs, and those for which its figures matter.
local function window_at(period, phase)
    if period == "none" then
        return 1, DAY, MINUTE
    end
    if period == "minute" then
        local since = now + phase
        return math.floor(since / MINUTE), MINUTE - since % MINUTE, 3 * MINUTE
    end
    local here = now + offset
    local day = math.floor(here / DAY)
    if period == "day" then
        return day, DAY - here % DAY, 3 * DAY
    end
    local month = month_of(day)
    return month, first_day_of(month + 1) * DAY - here, 93 * DAY
end

local function whole(value)
    return string.format("%.0f", value)
end

local function exchange(key, at)
    local limit, window, told = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local need, lasts, settled = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
    local known, known_window, now_epoch = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), tonumber(ARGV[at + 10])
    local current, left_ms, matters = window_at(ARGV[at], tonumber(ARGV[at + 1]))
    local fields = redis.call("HGETALL", key)
    local running, owed, lost, epoch, others, others_settled, mine, own_number = 0, 0, 0, -1, 0, 0, 0, nil
    for i = 1, #fields, 2 do
        local name, value = fields[i], fields[i + 1]
        if name == "w" then
            running = tonumber(value)
        elseif name == "o" then
            owed = tonumber(value)
        elseif name == "l" then
            lost = tonumber(value)
        elseif name == "e" then
            epoch = tonumber(value)
        else
            local holder = string.sub(name, 3)
            local amount, its_number, till, its_settled = string.match(value, "^(%S+) (%S+) (%S+) (%S+)$")
            till = tonumber(till)
            local over = till > 0 and till <= now and running >= current
            local gone = running >= current and string.find("," .. dead .. ",", "," .. holder .. ",", 1, true)
            if over or gone then
                redis.call("HDEL", key, name)
            elseif holder == worker then
                mine, own_number = tonumber(amount), tonumber(its_number)
            else
                others = others + tonumber(amount)
                others_settled = others_settled + tonumber(its_settled)
            end
        end
    end
    if current > running then
        if running > 0 then
            owed = math.max(0, owed + lost + others + mine - limit * (current - running))
        end
        lost, others, others_settled, mine, own_number = 0, 0, 0, 0, nil
        running = current
        redis.call("DEL", key)
        redis.call("HSET", key, "w", whole(running), "o", whole(owed), "l", "0", "e", whole(epoch))
    end
    if own_number and own_number >= number then
        return running, left_ms, 0, limit - owed - lost - others - mine
    end
    if window ~= running then
        told, settled = 0, 0
    end
    if known >= 0 and now_epoch > epoch then
        lost = math.max(lost, (known_window == running and known or 0) - others_settled - settled)
        epoch = now_epoch
        redis.call("HSET", key, "l", whole(lost), "e", whole(epoch))
    end
    local free = limit - owed - lost - others - told
    local slice = 0
    if epoch >= now_epoch and need > 0 and need <= free then
        slice = math.min(free, math.max(need, math.floor(free / (2 * workers))))
    end
    local till = lasts > 0 and now + lasts or 0
    local amount = told + slice
    if epoch >= now_epoch then
        settled = amount
    end
    redis.call("HSET", key, "h:" .. worker, whole(amount) .. " " .. whole(number) .. " " .. whole(till) .. " " .. whole(settled))
    redis.call("PEXPIRE", key, matters)
    return running, left_ms, slice, free - slice
end

local answer = { now }
for i, key in ipairs(KEYS) do
    local window, left_ms, slice, left = exchange(key, 7 + (i - 1) * PER_LIMIT)
    answer[#answer + 1] = window
    answer[#answer + 1] = left_ms
    answer[#answer + 1] = slice
    answer[#answer + 1] = left
end
return answer
