// Redigo: redigo check HOST PORT, or failover HOST PORT LEADER.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	// Ours and the one beside it, both of which are emptied.
	database      = 8
	otherDatabase = 9
	// How long a cluster may take to answer again: only a broken one does.
	patience = 30 * time.Second
	writes   = 100
)

// Which redigo this is; said by who builds it.
var version string

func poolOf(address string) *redis.Pool {
	return &redis.Pool{
		MaxIdle: 10,
		Dial: func() (redis.Conn, error) {
			return redis.Dial("tcp", address, redis.DialDatabase(database), redis.DialClientName("a-client"),
				redis.DialConnectTimeout(10*time.Second), redis.DialReadTimeout(10*time.Second))
		},
		TestOnBorrow: func(conn redis.Conn, _ time.Time) error {
			_, err := conn.Do("PING")
			return err
		},
	}
}

// A connection whose errors end the program, unless they are asked for.
type client struct{ redis.Conn }

func (c client) do(command string, args ...interface{}) interface{} {
	reply, err := c.Do(command, args...)
	must(err)
	return reply
}

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

// Is the reply, of which numbers and texts are as they are.
func same(expected, found interface{}) {
	if found = plain(found); !reflect.DeepEqual(expected, found) {
		log.Panicf("expected %#v, found %#v", expected, found)
	}
}

// A reply with texts instead of bytes, and ints.
func plain(reply interface{}) interface{} {
	switch reply := reply.(type) {
	case []byte:
		return string(reply)
	case int64:
		return int(reply)
	case []interface{}:
		all := make([]interface{}, len(reply))
		for i := range reply {
			all[i] = plain(reply[i])
		}
		return all
	}
	return reply
}

func list(elements ...interface{}) []interface{} { return elements }

func holds(condition bool) {
	if !condition {
		log.Panic("it does not hold")
	}
}

// An error that the node said.
func refused(begin string, _ interface{}, err error) {
	var said redis.Error
	if !errors.As(err, &said) || !strings.HasPrefix(string(said), begin) {
		log.Panicf("expected %s…, found %v", begin, err)
	}
}

func check(address string) {
	pool := poolOf(address)
	defer pool.Close()
	c := client{pool.Get()}
	defer c.Close()
	c.do("FLUSHDB")
	names(c)
	stringsAndNumbers(c)
	keys(c)
	deadlines(c)
	databases(c)
	pipelines(c)
	transactions(c, client{pool.Get()})
	scans(c)
	scripts(c)
	c.do("FLUSHDB")
	reconnects(pool)
	together(pool)
}

func names(c client) {
	same("PONG", c.do("PING"))
	same("hello", c.do("ECHO", "hello"))
	same("a-client", c.do("CLIENT", "GETNAME"))
	reply, err := c.Do("NONSENSE")
	refused("ERR unknown command", reply, err)
}

func stringsAndNumbers(c client) {
	same("OK", c.do("SET", "text", "värde"))
	same("värde", c.do("GET", "text"))
	same(nil, c.do("GET", "missing"))
	_, err := redis.String(c.Do("GET", "missing"))
	holds(err == redis.ErrNil)
	everything := make([]byte, 1<<20)
	for i := range everything {
		everything[i] = byte(i)
	}
	same("OK", c.do("SET", "\x00\r\n\xff", everything))
	found, err := redis.Bytes(c.Do("GET", []byte("\x00\r\n\xff")))
	must(err)
	holds(bytes.Equal(everything, found))
	same("OK", c.do("SET", "empty", ""))
	same("", c.do("GET", "empty"))
	same(nil, c.do("SET", "text", "x", "NX"))
	same(nil, c.do("SET", "new", "x", "XX"))
	same("OK", c.do("SET", "new", "x", "NX"))
	same("värde", c.do("SET", "text", "z", "GET"))
	same(3, c.do("APPEND", "text", "zz"))
	same(3, c.do("SETRANGE", "text", 1, "ab"))
	same("zab", c.do("GETRANGE", "text", 0, -1))
	same("OK", c.do("MSET", redis.Args{}.AddFlat(map[string]float64{"a": 1, "b": 2.5})...))
	same(list("1", nil, "2.5"), c.do("MGET", "a", "missing", "b"))
	same(0, c.do("MSETNX", "c", 1, "a", 2))
	same(nil, c.do("GET", "c"))
	same(1, c.do("INCR", "number"))
	same(10, c.do("INCRBY", "number", 9))
	same(-1, c.do("DECRBY", "number", 11))
	same("0.5", c.do("INCRBYFLOAT", "float", 0.5))
	reply, err := c.Do("INCR", "text")
	refused("ERR value is not an integer", reply, err)
}

func keys(c client) {
	same(2, c.do("EXISTS", "a", "missing", "a"))
	same("string", c.do("TYPE", "a"))
	same(2, c.do("DEL", "a", "b", "missing"))
	same(1, c.do("UNLINK", "new"))
	same("zab", c.do("GETDEL", "text"))
	same("OK", c.do("RENAME", "number", "renamed"))
	same("-1", c.do("GET", "renamed"))
	reply, err := c.Do("RENAME", "missing", "other")
	refused("ERR no such key", reply, err)
	same(1, c.do("COPY", "renamed", "copied"))
	same("-1", c.do("GET", "copied"))
}

func deadlines(c client) {
	left := func(command string) int64 { return c.do(command, "soon").(int64) }
	same("OK", c.do("SET", "soon", "x", "EX", 100))
	holds(left("TTL") > 90 && left("TTL") <= 100)
	same("OK", c.do("SET", "soon", "y", "KEEPTTL"))
	holds(left("PTTL") > 90_000)
	same(1, c.do("PERSIST", "soon"))
	same(-1, c.do("TTL", "soon"))
	same(-2, c.do("TTL", "missing"))
	same(1, c.do("EXPIRE", "soon", 100))
	same(0, c.do("EXPIRE", "missing", 100))
	same("y", c.do("GETEX", "soon", "PX", 50_000))
	holds(left("PTTL") <= 50_000)
	later := int(time.Now().Unix()) + 1000
	same(1, c.do("EXPIREAT", "soon", later))
	same(later, c.do("EXPIRETIME", "soon"))
	same("OK", c.do("SETEX", "soon", 100, "z"))
	same("OK", c.do("PSETEX", "soon", 1, "z"))
	for c.do("GET", "soon") != nil {
	}
}

func databases(c client) {
	c.do("SET", "here", "yes")
	same("OK", c.do("SELECT", otherDatabase))
	c.do("FLUSHDB")
	same(nil, c.do("GET", "here"))
	c.do("SET", "here", "no")
	c.do("FLUSHDB")
	reply, err := c.Do("SELECT", 1000)
	refused("ERR DB index is out of range", reply, err)
	same("OK", c.do("SELECT", database))
	same("yes", c.do("GET", "here"))
}

func pipelines(c client) {
	const count = 1000
	for n := 0; n < count; n++ {
		must(c.Send("SET", fmt.Sprint("pipe:", n), n))
		must(c.Send("GET", fmt.Sprint("pipe:", n)))
	}
	must(c.Flush())
	for n := 0; n < count; n++ {
		for _, expected := range []string{"OK", strconv.Itoa(n)} {
			reply, err := c.Receive()
			must(err)
			same(expected, reply)
		}
	}
	// An error is that command's; the others are done.
	must(c.Send("SET", "pipe", "text"))
	must(c.Send("INCR", "pipe"))
	must(c.Send("GET", "pipe"))
	replies, err := redis.Values(c.Do(""))
	must(err)
	same("OK", replies[0])
	refused("ERR value is not an integer", nil, replies[1].(error))
	same("text", replies[2])
}

func transactions(c, other client) {
	defer other.Close()
	must(c.Send("MULTI"))
	must(c.Send("SET", "balance", 10))
	must(c.Send("INCRBY", "balance", 5))
	must(c.Send("GET", "balance"))
	same(list("OK", 15, "15"), c.do("EXEC"))
	// Somebody else is faster.
	c.do("WATCH", "balance")
	other.do("INCR", "balance")
	must(c.Send("MULTI"))
	must(c.Send("SET", "balance", 0))
	same(nil, c.do("EXEC"))
	same("16", c.do("GET", "balance"))
	c.do("WATCH", "balance")
	must(c.Send("MULTI"))
	must(c.Send("SET", "balance", 32))
	same(list("OK"), c.do("EXEC"))
	same("32", other.do("GET", "balance"))
	must(c.Send("MULTI"))
	must(c.Send("SET", "text", "abc"))
	must(c.Send("INCR", "text"))
	must(c.Send("SET", "after", 1))
	replies, err := redis.Values(c.Do("EXEC"))
	must(err)
	refused("ERR value is not an integer", nil, replies[1].(error))
	same("1", c.do("GET", "after"))
}

func scans(c client) {
	c.do("FLUSHDB")
	expected, found := []string{"other"}, []string{}
	for n := 0; n < 500; n++ {
		expected = append(expected, fmt.Sprint("scan:", n))
	}
	for _, name := range expected {
		must(c.Send("SET", name, "x"))
	}
	c.do("")
	for cursor := "0"; ; {
		page, err := redis.Values(c.Do("SCAN", cursor, "MATCH", "*", "COUNT", 50))
		must(err)
		var names []string
		_, err = redis.Scan(page, &cursor, &names)
		must(err)
		if found = append(found, names...); cursor == "0" {
			break
		}
	}
	sort.Strings(expected)
	sort.Strings(found)
	same(expected, found)
	same(501, c.do("DBSIZE"))
	same(10, len(c.do("KEYS", "scan:1?").([]interface{})))
}

// The script with which people let go of a lock.
func scripts(c client) {
	release := redis.NewScript(1, `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`)
	for i, owner := range []string{"somebody", "me"} {
		c.do("SET", "lock", "me", "NX", "EX", 100)
		released, err := redis.Int(release.Do(c, "lock", owner))
		must(err)
		same(i, released)
	}
	same(nil, c.do("GET", "lock"))
}

// The node closes a connection: the pool makes another one.
func reconnects(pool *redis.Pool) {
	c := client{pool.Get()}
	same("OK", c.do("SET", "kept", "yes"))
	same("OK", c.do("QUIT"))
	must(c.Close())
	c = client{pool.Get()}
	same("yes", c.do("GET", "kept"))
	same("a-client", c.do("CLIENT", "GETNAME"))
	must(c.Close())
}

// Several connections at a time.
func together(pool *redis.Pool) {
	var all sync.WaitGroup
	for n := 0; n < 20; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			c := client{pool.Get()}
			defer c.Close()
			for n := 0; n < 20; n++ {
				c.do("INCR", "sum")
			}
		}()
	}
	all.Wait()
	c := client{pool.Get()}
	defer c.Close()
	same("400", c.do("GET", "sum"))
	c.do("FLUSHDB")
}

// Until it succeeds, each time with a connection of the pool.
func patiently(pool *redis.Pool, command string, args ...interface{}) interface{} {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn := pool.Get()
		reply, err := conn.Do(command, args...)
		conn.Close()
		if err == nil {
			return reply
		}
		if time.Now().After(deadline) {
			log.Panic(err)
		}
	}
}

// Kills the leader's process while writing through another node.
func failover(address string, leader int) {
	pool := poolOf(address)
	defer pool.Close()
	key := func(n int) string { return fmt.Sprintf("failover:%d:%d", os.Getpid(), n) }
	value := func(n int) string { return fmt.Sprint("value ", n) }
	for n := 0; n < 2*writes; n++ {
		start := time.Now()
		if n == writes {
			must(syscall.Kill(leader, syscall.SIGKILL))
		}
		same("OK", patiently(pool, "SET", key(n), value(n)))
		if n == writes {
			fmt.Printf("answers again after %.2f s, ", time.Since(start).Seconds())
		}
	}
	for n := 0; n < 2*writes; n++ {
		same(value(n), patiently(pool, "GET", key(n)))
	}
	fmt.Println(2*writes, "writes are there")
}

func main() {
	log.SetFlags(0)
	address := net.JoinHostPort(os.Args[2], os.Args[3])
	switch os.Args[1] {
	case "check":
		check(address)
		fmt.Println("redigo", version, "of", runtime.Version())
	case "failover":
		leader, err := strconv.Atoi(os.Args[4])
		must(err)
		failover(address, leader)
	}
}
