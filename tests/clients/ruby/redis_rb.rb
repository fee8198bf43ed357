# redis-rb: redis_rb.rb check HOST PORT, or failover HOST PORT LEADER.

require "redis"

# Ours and the one beside it, both of which are emptied.
DATABASE = 8
OTHER_DATABASE = 9
# How long a cluster may take to answer again: only a broken one does.
SECONDS = 30
WRITES = 100

def client(host, port)
  Redis.new(host: host, port: Integer(port), db: DATABASE, id: "a-client")
end

def same(expected, found)
  raise "expected #{expected.inspect}, found #{found.inspect}" unless expected == found
end

# Raises an error that the node said.
def refused(pattern)
  found = yield
rescue Redis::CommandError => error
  raise "expected #{pattern.inspect}: #{error}" unless pattern.match?(error.message)
else
  raise "returned #{found.inspect}"
end

def check(host, port)
  redis = client(host, port)
  redis.flushdb
  names(redis)
  strings(redis)
  keys(redis)
  deadlines(redis)
  databases(redis)
  pipelines(redis)
  transactions(redis, client(host, port))
  scans(redis)
  reconnects(redis)
  threads(redis)
  redis.flushdb
  puts "redis-rb #{Redis::VERSION} of Ruby #{RUBY_VERSION}"
end

def names(redis)
  same "PONG", redis.ping
  same "hello", redis.echo("hello")
  redis.call("CLIENT", "SETNAME", "a-client")
  same "a-client", redis.call("CLIENT", "GETNAME")
  same true, redis.time.first.positive?
  same true, redis.info.key?("redis_version")
  refused(/\AERR unknown command/) { redis.call("NONSENSE") }
end

def strings(redis)
  same "OK", redis.set("text", "värde")
  same "värde", redis.get("text").force_encoding("UTF-8")
  same nil, redis.get("missing")
  everything = (0..255).to_a.pack("C*") * 4096
  same "OK", redis.set("\x00\r\n\xff".b, everything)
  same everything, redis.get("\x00\r\n\xff".b).b
  same "OK", redis.set("empty", "")
  same "", redis.get("empty")
  same false, redis.set("text", "x", nx: true)
  same false, redis.set("new", "x", xx: true)
  same true, redis.set("new", "x", nx: true)
  same "x", redis.set("new", "y", get: true)
  same false, redis.setnx("text", "y")
  same "värde", redis.getset("text", "z").force_encoding("UTF-8")
  same 3, redis.append("text", "zz")
  same 3, redis.setrange("text", 1, "ab")
  same "zab", redis.getrange("text", 0, -1)
  same 3, redis.strlen("text")
  same "OK", redis.mapped_mset("a" => 1, "b" => 2.5)
  same ["1", nil, "2.5"], redis.mget("a", "missing", "b")
  same false, redis.msetnx("c", 1, "a", 2)
  same false, redis.exists?("c")
  same [1, 10, -1], [redis.incr("number"), redis.incrby("number", 9), redis.decrby("number", 11)]
  same 0.5, redis.incrbyfloat("float", 0.5)
  refused(/\AERR value is not an integer/) { redis.incr("text") }
end

def keys(redis)
  same 2, redis.exists("a", "missing", "a")
  same "string", redis.type("a")
  same 2, redis.del("a", "b", "missing")
  same 1, redis.unlink("new")
  same "zab", redis.getdel("text")
  same "OK", redis.rename("number", "renamed")
  same "-1", redis.get("renamed")
  refused(/\AERR no such key/) { redis.rename("missing", "other") }
  same true, redis.copy("renamed", "copied")
  same "-1", redis.get("copied")
end

def deadlines(redis)
  same "OK", redis.set("soon", "x", ex: 100)
  same true, (91..100).cover?(redis.ttl("soon"))
  same "OK", redis.set("soon", "y", keepttl: true)
  same true, redis.pttl("soon") > 90_000
  same true, redis.persist("soon")
  same [-1, -2], [redis.ttl("soon"), redis.ttl("missing")]
  same [true, false], [redis.expire("soon", 100), redis.expire("missing", 100)]
  same "y", redis.getex("soon", px: 50_000)
  same true, redis.pttl("soon") <= 50_000
  later = redis.time.first + 1000
  same true, redis.expireat("soon", later)
  same later, redis.call("EXPIRETIME", "soon")
  same "OK", redis.setex("soon", 100, "z")
  same "OK", redis.psetex("soon", 1, "z")
  nil while redis.get("soon")
end

def databases(redis)
  redis.set("here", "yes")
  redis.select(OTHER_DATABASE)
  redis.flushdb
  same nil, redis.get("here")
  redis.set("here", "no")
  redis.flushdb
  redis.select(DATABASE)
  same "yes", redis.get("here")
  refused(/\AERR DB index is out of range/) { redis.select(1000) }
  redis.select(DATABASE)
end

def pipelines(redis)
  replies = redis.pipelined do |pipe|
    1000.times { |n| pipe.set("pipe:#{n}", n) && pipe.get("pipe:#{n}") }
  end
  same (0...1000).flat_map { |n| ["OK", n.to_s] }, replies
  # An error is that command's; the others are done.
  refused(/\AERR value is not an integer/) do
    redis.pipelined { |pipe| pipe.set("pipe", "text") && pipe.incr("pipe") && pipe.set("after", "1") }
  end
  same %w[text 1], redis.mget("pipe", "after")
end

def transactions(redis, other)
  replies = redis.multi { |all| all.set("balance", 10) && all.incrby("balance", 5) && all.get("balance") }
  same ["OK", 15, "15"], replies
  # Somebody else is faster, once.
  faster = true
  double = lambda do
    redis.watch("balance") do
      balance = Integer(redis.get("balance"))
      other.incr("balance") if faster
      faster = false
      redis.multi { |all| all.set("balance", 2 * balance) }
    end
  end
  same [nil, "16"], [double.call, redis.get("balance")]
  same [["OK"], "32"], [double.call, other.get("balance")]
  refused(/\AERR value is not an integer/) do
    redis.multi { |all| all.set("text", "abc") && all.incr("text") && all.set("after", "2") }
  end
  same "2", redis.get("after")
  other.close
end

def scans(redis)
  redis.flushdb
  names = (0...500).map { |n| "scan:#{n}" }
  same "OK", redis.mset(*names.flat_map { |name| [name, "x"] })
  redis.set("other", "y")
  found = redis.scan_each(match: "scan:*", count: 50).to_a
  same names.sort, found.sort
  same 501, redis.scan_each.count
  same ["other"], redis.scan_each(match: "oth*", type: "string").to_a
  same 501, redis.dbsize
  same 10, redis.keys("scan:1?").size
end

# The node closes the connection.
def reconnects(redis)
  redis.set("kept", "yes")
  redis.call("QUIT")
  same "yes", patiently { redis.get("kept") }
end

# One client of many threads.
def threads(redis)
  sums = Array.new(20) { Thread.new { Array.new(20) { redis.incr("sum") } } }.flat_map(&:value)
  same (1..400).to_a, sums.sort
end

# Until it succeeds.
def patiently
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + SECONDS
  begin
    yield
  rescue Redis::BaseError
    raise if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.01
    retry
  end
end

# Kills the leader's process while writing through another node.
def failover(host, port, leader)
  redis = client(host, port)
  written = (0...2 * WRITES).to_h { |n| ["failover:#{Process.pid}:#{n}", "value #{n}"] }
  written.each_with_index do |(key, value), n|
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    Process.kill(:KILL, Integer(leader)) if n == WRITES
    patiently { same "OK", redis.set(key, value) }
    next unless n == WRITES

    printf("answers again after %.2f s, ", Process.clock_gettime(Process::CLOCK_MONOTONIC) - start)
  end
  lost = written.reject { |key, value| patiently { redis.get(key) } == value }
  same({}, lost)
  puts "#{written.size} writes are there"
end

job, *arguments = ARGV
{ "check" => method(:check), "failover" => method(:failover) }.fetch(job).call(*arguments)
