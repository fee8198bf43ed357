<?php
/** PHP's sessions, kept by phpredis; each is locked while a page has it. */

declare(strict_types=1);

const PREFIX = 'session:';
const VISITORS = 4;
const VISITS = 25;
const DATABASE = 6;

function configure(string $host, int $port, int $lockSeconds): Redis
{
    $settings = [
        'session.save_handler' => 'redis',
        'session.save_path' => "tcp://$host:$port?database=" . DATABASE . '&prefix=' . PREFIX,
        'session.gc_maxlifetime' => 100,
        'session.use_cookies' => 0,
        'session.cache_limiter' => '',
        'redis.session.locking_enabled' => 1,
        'redis.session.lock_expire' => $lockSeconds,
        'redis.session.lock_retries' => 1000,
        'redis.session.lock_wait_time' => 10_000,
    ];
    foreach ($settings as $name => $value) {
        expect(ini_set($name, (string) $value) !== false, $name);
    }
    $redis = new Redis();
    $redis->connect($host, $port);
    $redis->select(DATABASE);
    return $redis;
}

/** What a page does with a session. */
function visit(string $id, callable $page): mixed
{
    session_id($id);
    try {
        expect(session_start());
        $found = $page();
        expect(session_write_close());
        return $found;
    } finally {
        if (session_status() === PHP_SESSION_ACTIVE) {
            session_abort();
        }
        $_SESSION = [];
    }
}

function count_visit(): int
{
    return $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
}

/** With an id it is one of the visitors. */
function check(string $host, int $port, string $id = ''): void
{
    $redis = configure($host, $port, 100);
    if ($id !== '') {
        for ($n = 0; $n < VISITS; $n++) {
            visit($id, 'count_visit');
        }
        return;
    }
    $redis->flushDB();
    sessions($redis);
    locks($redis);
    visitors($host, $port);
    // Every lock was let go.
    same([], $redis->keys('*LOCK*'));
    $redis->flushDB();
}

function sessions(Redis $redis): void
{
    same([1, 2, 3], array_map(fn () => visit('one', 'count_visit'), range(1, 3)));
    same(1, visit('other', 'count_visit'));
    same('visits|i:3;', $redis->get(PREFIX . 'one'));
    expect($redis->ttl(PREFIX . 'one') > 90);
    visit('one', fn () => $_SESSION['name'] = "Åsa\0\r\n");
    same("Åsa\0\r\n", visit('one', fn () => $_SESSION['name']));
    $left = visit('one', function () {
        expect(session_regenerate_id(true));
        return session_id();
    });
    expect($left !== 'one');
    same([0, 1], [$redis->exists(PREFIX . 'one'), $redis->exists(PREFIX . $left)]);
    same(4, visit($left, 'count_visit'));
    session_id('other');
    session_start();
    expect(session_destroy());
    same(0, $redis->exists(PREFIX . 'other'));
    same(1, visit('other', 'count_visit'));
}

/** Whoever has lost a lock does not let go of another one's. */
function locks(Redis $redis): void
{
    $lock = PREFIX . 'one_LOCK';
    visit('one', function () use ($redis, $lock) {
        expect($redis->ttl($lock) > 90);
        $_SESSION['visits'] = 7;
    });
    same(false, $redis->get($lock));
    $redis->set($lock, 'somebody');
    ini_set('redis.session.lock_retries', '1');
    try {
        visit('one', 'count_visit');
        expect(false, 'it was locked');
    } catch (ErrorException) {
    }
    ini_set('redis.session.lock_retries', '1000');
    same('somebody', $redis->get($lock));
    $redis->del($lock);
    try {
        visit('one', fn () => $redis->set($lock, 'somebody') && count_visit());
        expect(false, 'it was not locked any more');
    } catch (ErrorException) {
    }
    same('somebody', $redis->get($lock));
    $redis->del($lock);
    same(8, visit('one', 'count_visit'));
}

/** Each in a process of its own: none may overwrite what another one counts. */
function visitors(string $host, int $port): void
{
    $command = [PHP_BINARY, ...$GLOBALS['argv'], 'shared'];
    $all = [];
    for ($n = 0; $n < VISITORS; $n++) {
        $all[] = proc_open($command, [1 => ['file', '/dev/null', 'w'], 2 => STDERR], $pipes);
    }
    same(array_fill(0, VISITORS, 0), array_map('proc_close', $all));
    same(VISITORS * VISITS + 1, visit('shared', 'count_visit'));
}

/** A lock that is not let go of ends before patience does. */
function connect(string $host, int $port): array
{
    configure($host, $port, 2);
    return [
        fn (string $key, string $value) => visit($key, fn () => $_SESSION['value'] = $value),
        fn (string $key) => visit($key, fn () => $_SESSION['value'] ?? null),
    ];
}
