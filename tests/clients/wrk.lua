-- What wrk asks: METHOD PATH BODY, in which each %d becomes a number below KEYS. What
-- comes behind GET PATH is how every answer has to begin; the others are counted.

local KEYS = 100
local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(arguments)
   method, path = arguments[1], arguments[2]
   if method == "GET" then
      begin = arguments[3]
   else
      body = arguments[3]
   end
   number, wrong = 0, 0
end

function request()
   number = (number + 1) % KEYS
   return wrk.format(method, path:gsub("%%d", number), nil, body and body:gsub("%%d", number))
end

function response(_, _, answer)
   if begin and answer:sub(1, #begin) ~= begin then
      wrong = wrong + 1
   end
end

function done(summary)
   local errors = summary.errors
   local wrong = 0
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
   end
   io.write(string.format("requests=%d status=%d connect=%d read=%d write=%d timeout=%d wrong=%d\n",
      summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout, wrong))
end
