<?php
/** phpredis. */

declare(strict_types=1);

/** Ours and the one beside it, both of which are emptied. */
const DATABASE = 6;
const OTHER_DATABASE = 7;

function client(string $host, int $port): Redis
{
    $redis = new Redis();
    $redis->connect($host, $port);
    $redis->select(DATABASE);
    return $redis;
}

function check(string $host, int $port): void
{
    $redis = client($host, $port);
    $redis->flushDB();
    names($redis);
    strings($redis);
    keys($redis);
    deadlines($redis);
    databases($redis);
    pipelines($redis);
    transactions($redis, client($host, $port));
    scans($redis);
    options($redis);
    $redis->flushDB();
}

/** Returns false, and the error is that of the server. */
function refused(Redis $redis, mixed $found, string $begin): void
{
    same(false, $found);
    expect(str_starts_with((string) $redis->getLastError(), $begin), (string) $redis->getLastError());
    $redis->clearLastError();
}

function names(Redis $redis): void
{
    same(true, $redis->ping());
    same('hello', $redis->echo('hello'));
    same(true, $redis->client('setname', 'a-client'));
    same('a-client', $redis->client('getname'));
    expect($redis->time()[0] > 0);
    expect(isset($redis->info()['redis_version']));
    refused($redis, $redis->rawCommand('NONSENSE'), 'ERR unknown command');
}

function strings(Redis $redis): void
{
    same(true, $redis->set('text', 'värde'));
    same('värde', $redis->get('text'));
    same(false, $redis->get('missing'));
    $everything = str_repeat(implode('', array_map('chr', range(0, 255))), 4096);
    same(true, $redis->set("\0\r\n\xff", $everything));
    expect($redis->get("\0\r\n\xff") === $everything);
    same(true, $redis->set('empty', ''));
    same('', $redis->get('empty'));
    same(false, $redis->set('text', 'x', ['nx']));
    same(false, $redis->set('new', 'x', ['xx']));
    same(true, $redis->set('new', 'x', ['nx', 'ex' => 100]));
    same(false, $redis->setnx('text', 'y'));
    same('värde', $redis->getSet('text', 'z'));
    same(3, $redis->append('text', 'zz'));
    same(3, $redis->setRange('text', 1, 'ab'));
    same('zab', $redis->getRange('text', 0, -1));
    same(3, $redis->strlen('text'));
    same(true, $redis->mset(['a' => '1', 'b' => '2.5']));
    same(['1', false, '2.5'], $redis->mget(['a', 'missing', 'b']));
    expect(!$redis->msetnx(['c' => '1', 'a' => '2']));
    same(0, $redis->exists('c'));
    same(1, $redis->incr('number'));
    same(10, $redis->incrBy('number', 9));
    same(-1, $redis->decrBy('number', 11));
    same(0.5, $redis->incrByFloat('float', 0.5));
    refused($redis, $redis->incr('text'), 'ERR value is not an integer');
}

function keys(Redis $redis): void
{
    same(2, $redis->exists('a', 'missing', 'a'));
    same(Redis::REDIS_STRING, $redis->type('a'));
    same(2, $redis->del('a', 'b', 'missing'));
    same(1, $redis->unlink('new'));
    same(true, $redis->rename('number', 'renamed'));
    same('-1', $redis->get('renamed'));
    refused($redis, $redis->rename('missing', 'other'), 'ERR no such key');
    same(1, $redis->rawCommand('COPY', 'renamed', 'copied'));
    same('-1', $redis->get('copied'));
    same('zab', $redis->rawCommand('GETDEL', 'text'));
}

function deadlines(Redis $redis): void
{
    same(true, $redis->set('soon', 'x', 100));
    expect($redis->ttl('soon') > 90);
    same(true, $redis->set('soon', 'x', ['px' => 50_000]));
    expect($redis->pttl('soon') <= 50_000);
    same(true, $redis->persist('soon'));
    same(-1, $redis->ttl('soon'));
    same(-2, $redis->ttl('missing'));
    same(true, $redis->expire('soon', 100));
    same(false, $redis->expire('missing', 100));
    same(true, $redis->expireAt('soon', time() + 1000));
    expect($redis->ttl('soon') > 900);
    same(true, $redis->setex('soon', 100, 'y'));
    same(true, $redis->psetex('soon', 1, 'z'));
    while ($redis->get('soon') !== false) {
    }
}

function databases(Redis $redis): void
{
    $redis->set('here', 'yes');
    same(true, $redis->select(OTHER_DATABASE));
    $redis->flushDB();
    same(false, $redis->get('here'));
    $redis->set('here', 'no');
    $redis->flushDB();
    refused($redis, $redis->select(1000), 'ERR DB index is out of range');
    same(true, $redis->select(DATABASE));
    same('yes', $redis->get('here'));
}

function pipelines(Redis $redis): void
{
    $pipe = $redis->pipeline();
    $expected = [];
    for ($n = 0; $n < 1000; $n++) {
        $pipe->set("pipe:$n", (string) $n)->get("pipe:$n");
        array_push($expected, true, (string) $n);
    }
    same($expected, $pipe->exec());
    // An error is that command's; the others are done.
    same([true, false, 'text'], $redis->pipeline()->set('pipe', 'text')->incr('pipe')->get('pipe')->exec());
}

function transactions(Redis $redis, Redis $other): void
{
    same([true, 15, '15'], $redis->multi()->set('balance', '10')->incrBy('balance', 5)->get('balance')->exec());
    // Somebody else is faster.
    $redis->watch('balance');
    $other->incr('balance');
    same(false, $redis->multi()->set('balance', '0')->exec());
    same('16', $redis->get('balance'));
    $redis->watch('balance');
    same([true], $redis->multi()->set('balance', '32')->exec());
    same('32', $other->get('balance'));
    same([true, false, true], $redis->multi()->set('text', 'abc')->incr('text')->set('after', '1')->exec());
    same('1', $redis->get('after'));
    $redis->multi()->set('after', '2');
    same(true, $redis->discard());
    same('1', $redis->get('after'));
}

function scans(Redis $redis): void
{
    $redis->flushDB();
    $names = array_map(fn (int $n) => "scan:$n", range(0, 499));
    same(true, $redis->mset(array_fill_keys($names, 'x')));
    $redis->set('other', 'y');
    $redis->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
    $found = [];
    $cursor = null;
    while ($keys = $redis->scan($cursor, 'scan:*', 50)) {
        array_push($found, ...$keys);
    }
    sort($names);
    sort($found);
    same($names, $found);
    same(501, $redis->dbSize());
    same(10, count($redis->keys('scan:1?')));
}

/** What the library makes of values and keys by itself. */
function options(Redis $redis): void
{
    $redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
    $redis->setOption(Redis::OPT_PREFIX, 'site:');
    $user = ['name' => 'Åsa', 'ids' => [1, 2, 3]];
    same(true, $redis->set('user', $user));
    same($user, $redis->get('user'));
    same(['site:user'], $redis->keys('*'));
    $redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_NONE);
    $redis->setOption(Redis::OPT_PREFIX, '');
    same(serialize($user), $redis->get('site:user'));
}

/**
 * After an error that was thrown there is a new connection: the library may have made
 * one by itself, but not always with our database.
 */
function connect(string $host, int $port): array
{
    $redis = client($host, $port);
    $ask = function (callable $call) use (&$redis, $host, $port): mixed {
        $redis->clearLastError();
        try {
            $found = $call($redis);
        } catch (RedisException $error) {
            $redis = client($host, $port);
            throw $error;
        }
        // Not every error is thrown.
        return $redis->getLastError() === null ? $found : throw new RuntimeException($redis->getLastError());
    };
    return [
        fn (string $key, string $value) => same(true, $ask(fn (Redis $redis) => $redis->set($key, $value))),
        fn (string $key) => $ask(fn (Redis $redis) => $redis->get($key)),
    ];
}
