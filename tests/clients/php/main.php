<?php
/**
 * Runs one client: main.php MODULE check HOST PORT, or MODULE failover HOST PORT LEADER.
 *
 * A module defines what those of Python do (main.py); check takes what else it is
 * called with, too, and connect returns the two functions put and get.
 */

declare(strict_types=1);

/** How long a cluster may take to answer again: only a broken one does. */
const SECONDS = 30;
const WRITES = 100;

// Whatever PHP would only warn of.
set_error_handler(function (int $level, string $message, string $file, int $line) {
    throw new ErrorException($message, 0, $level, $file, $line);
});

function expect(bool $holds, string $what = 'it does not hold'): void
{
    if (!$holds) {
        throw new AssertionError($what);
    }
}

/** Is exactly that. */
function same(mixed $expected, mixed $found): void
{
    expect($expected === $found, 'expected ' . var_export($expected, true) . ', found ' . var_export($found, true));
}

/** Until it succeeds. */
function patiently(callable $call): mixed
{
    $deadline = hrtime(true) + SECONDS * 1_000_000_000;
    for (;;) {
        try {
            return $call();
        } catch (Exception $error) {
            if (hrtime(true) > $deadline) {
                throw $error;
            }
            usleep(10_000);
        }
    }
}

/** Kills the leader's process while writing through another node. */
function failover(string $host, int $port, int $leader): void
{
    [$put, $get] = connect($host, $port);
    $key = fn (int $n) => 'failover-' . getmypid() . "-$n";
    for ($n = 0; $n < 2 * WRITES; $n++) {
        $start = hrtime(true);
        if ($n === WRITES) {
            expect(posix_kill($leader, 9));
        }
        patiently(fn () => $put($key($n), "value $n"));
        if ($n === WRITES) {
            printf('answers again after %.2f s, ', (hrtime(true) - $start) / 1e9);
        }
    }
    for ($n = 0; $n < 2 * WRITES; $n++) {
        same("value $n", patiently(fn () => $get($key($n))));
    }
    echo 2 * WRITES, " writes are there\n";
}

[, $module, $job, $host, $port] = $argv;
require __DIR__ . "/$module.php";
if ($job === 'failover') {
    failover($host, (int) $port, (int) $argv[5]);
} else {
    check($host, (int) $port, ...array_slice($argv, 5));
    echo 'phpredis ', phpversion('redis'), ' of PHP ', PHP_VERSION, "\n";
}
