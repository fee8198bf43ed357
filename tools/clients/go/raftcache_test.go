package raftcache

// The golden bytes, failing over, and a node if there is one.
//
//	go test                          needs nothing
//	go test -args -live HOST:PORT    and then a running node, which it writes to
//
// Every line of binary_golden.txt is looked up here by what it says, and every entry
// here has to be in the file, so neither can change without the other.

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"math/big"
	"net"
	"os"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"
)

var liveAddress = flag.String("live", "", "a running node to write to")

// key is short for K, and the rest for what is often said below.
var key = K

func set(name, value string) *Request { return Set(K(name), []byte(value), SetOptions{}) }

func setIf(name, value string, e Expiry, c Condition) *Request {
	return Set(K(name), []byte(value), SetOptions{e, c})
}

var bothSet = MSet(Pair{key("a"), []byte("1")}, Pair{key("b"), []byte("2")})

// In the order of the file.
var requests = []struct {
	says    string
	request *Request
}{
	{"classic-set | SET K_0=V_0, no ttl", ClassicSet("K_0", []byte("V_0"), 0)},
	{"classic-set | SET Foo=Bar for 2 seconds", ClassicSet("Foo", []byte("Bar"), 2)},
	{"classic-set | SET of an empty key to an empty value", ClassicSet("", nil, 0)},
	{"classic-get | GET K_0", ClassicGet("K_0")},
	{"classic-join | JOIN node2 at 127.0.0.1:1112", ClassicJoin("node2", "127.0.0.1:1112")},
	{"ping | PING", Ping()},
	{"get | GET K_0, linearizable", Get(key("K_0"), Linearizable)},
	{"get | GET K_0 of database 15, stale", Get(Key{"K_0", 15}, Stale)},
	{"set | SET K_0=V_0", set("K_0", "V_0")},
	{"set | SET K_0 to nothing, keeping its deadline, if absent", setIf("K_0", "", Keep, IfAbsent)},
	{"set | SET K_0=V for 1500 ms, if present", setIf("K_0", "V", After(1500*time.Millisecond), IfPresent)},
	{"set | SET K_0=V until 2^40 ms since 1970, if it holds U", setIf("K_0", "V", At(time.UnixMilli(1<<40)), IfValue([]byte("U")))},
	{"set | SET K_0=V, if its version is 258", setIf("K_0", "V", Expiry{}, IfVersion(258))},
	{"del | DEL K_0", Delete(key("K_0"))},
	{"exists | EXISTS K_0, linearizable", Exists(key("K_0"), Linearizable)},
	{"expire | EXPIRE K_0 in 1500 ms", Expire(key("K_0"), After(1500*time.Millisecond))},
	{"persist | PERSIST K_0", Persist(key("K_0"))},
	{"ttl | TTL K_0, linearizable", TTL(key("K_0"), Linearizable)},
	{"incrby | INCRBY K_0 -2", Incr(key("K_0"), -2)},
	{"mget | MGET a b, linearizable", MGet(Linearizable, key("a"), key("b"))},
	{"mset | MSET a=1 b=2", bothSet},
	{"count | COUNT of database 0, linearizable", Count(0, Linearizable)},
	{"clear | CLEAR database 3", Clear(3)},
	{"clear | CLEAR all databases", Clear(AllDatabases)},
	{"batch | BATCH if a has version 9 and b of database 1 is absent: SET a=1, GET b",
		Batch(Linearizable, []Guard{{key("a"), 9}, {Key{"b", 1}, 0}}, set("a", "1"), Get(key("b"), Linearizable))},
	{"batch-all | BATCH: GET EXISTS TTL of a, COUNT, SET a=1, DEL EXPIRE (1 ms) PERSIST INCRBY (1) a, CLEAR all",
		Batch(Linearizable, nil, Get(key("a"), Linearizable), Exists(key("a"), Linearizable), TTL(key("a"), Linearizable),
			Count(0, Linearizable), set("a", "1"), Delete(key("a")), Expire(key("a"), After(time.Millisecond)),
			Persist(key("a")), Incr(key("a"), 1), Clear(AllDatabases))},
	{"session | SESSION", OpenSession()},
	{"stamped-set | STAMPED session 7 sequence 1: SET K_0=V_0", Stamped(7, 1, set("K_0", "V_0"))},
	{"stamped-mset | STAMPED session 7 sequence 1: MSET a=1 b=2", Stamped(7, 1, bothSet)},
	{"join | JOIN node2 at 127.0.0.1:1112", Join("node2", "127.0.0.1:1112")},
	{"leave | LEAVE node2", Leave("node2")},
	{"members | MEMBERS", Members()},
	{"transfer | TRANSFER to node2", Transfer("node2")},
	{"transfer | TRANSFER to anyone", Transfer("")},
	{"status | STATUS", GetStatus()},
}

var (
	n1 = Member{"n1", big.NewInt(1), "h:4001", "h:3001", true, true}
	n2 = Member{"n2", new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)), "h:4002", "h:3002", false, false}
)

func no(kind Kind, message string) Outcome { return Outcome{Err: &Refused{kind, message}} }
func some(value any) Outcome               { return Outcome{Value: value} }
func isSet(version uint64) Outcome         { return some(SetResult{true, version}) }
func is(value string, version uint64) Outcome {
	return some(&Item{[]byte(value), version})
}

var (
	noReason     = Outcome{Err: &OutcomeUnknown{"the classic reply gives no reason"}}
	notAnInteger = no(NotAnInteger, "value is not an integer or out of range")
	bothAreSet   = some([]Outcome{isSet(8), isSet(8)})
	absent       = Outcome{}
)

var replies = map[string]Outcome{
	"classic-set | done":                       {},
	"classic-set | failed":                     noReason,
	"classic-get | V_0":                        some([]byte("V_0")),
	"classic-get | no such key":                absent,
	"classic-get | failed":                     noReason,
	"classic-join | done":                      {},
	"classic-join | failed":                    noReason,
	"ping | done":                              {},
	"get | version 7, V_0":                     is("V_0", 7),
	"get | no such key":                        absent,
	"set | version 7":                          isSet(7),
	"set | condition does not hold, version 6": some(SetResult{false, 6}),
	"set | invalid expiry":                     no(InvalidExpiry, "invalid expire time"),
	"set | invalid":                            no(Invalid, "why"),
	"set | no leader":                          no(NoLeader, "why"),
	"set | outcome unknown":                    {Err: &OutcomeUnknown{"why"}},
	"set | out of memory":                      no(OutOfMemory, "why"),
	"set | disk full":                          no(DiskFull, "why"),
	"set | busy":                               no(Busy, "why"),
	"set | session expired":                    no(SessionExpired, "why"),
	"set | refused":                            no(NotAllowed, "why"),
	"set | not serving":                        no(NotServing, "why"),
	"del | removed":                            some(true),
	"exists | absent":                          some(false),
	"expire | deadline set":                    some(true),
	"persist | had no deadline":                some(false),
	"ttl | 1500 ms left":                       some(1500 * time.Millisecond),
	"ttl | no deadline":                        some(NoDeadline),
	"ttl | no such key":                        absent,
	"incrby | -2":                              some(int64(-2)),
	"incrby | not an integer":                  notAnInteger,
	"incrby | overflow":                        no(Overflow, "increment or decrement would overflow"),
	"mget | version 7 1, no such key":          some([]Outcome{is("1", 7), absent}),
	"mset | version 8, version 8":              bothAreSet,
	"count | 258 keys":                         some(int64(258)),
	"clear | done":                             {},
	"batch | version 8; version 7 2":           some([]Outcome{isSet(8), is("2", 7)}),
	"batch | a guard does not hold":            no(GuardFailed, "a guard does not hold"),
	"batch-all | version 7 1; 1; no deadline; 2; version 8; 1; 0; 0; not an integer; done": some([]Outcome{
		is("1", 7), some(true), some(NoDeadline), some(int64(2)), isSet(8), some(true), some(false), some(false), notAnInteger, {},
	}),
	"session | session 7":                 some(uint64(7)),
	"stamped-set | version 7":             isSet(7),
	"stamped-mset | version 8, version 8": bothAreSet,
	"join | done":                         {},
	"leave | refused":                     no(NotAllowed, "why"),
	"members | n1 (node 1, h:4001, h:3001, voter, leader), n2 (node 2^128-1, h:4002, h:3002)": some([]Member{n1, n2}),
	"transfer | done": {},
	"status | n1, node 1, cluster 2, leader, led by n1, term 3, last 14, durable 13, commit 12, applied 11, log 2^20, " +
		"keys 10, memory 4096 of 2^30, hash 2^64-1, log time 1700000000000, offset -5, the two members, \"disk is slow\"": some(&Status{
		Name: "n1", Node: big.NewInt(1), Cluster: big.NewInt(2), Role: "leader", Leader: "n1", Term: 3, Last: 14, Durable: 13,
		Commit: 12, Applied: 11, LogBytes: 1 << 20, Keys: 10, MemoryBytes: 4096, MemoryLimit: 1 << 30, StateHash: 1<<64 - 1,
		LogTimeMs: 1_700_000_000_000, ClockOffsetMs: -5, Members: []Member{n1, n2}, Warnings: []string{"disk is slow"},
	}),
}

func expect(t *testing.T, what string, found, expected any) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Fatalf("%s: found %#v, expected %#v", what, found, expected)
	}
}

func TestGoldenBytes(t *testing.T) {
	text, err := os.ReadFile("../../../src/protocol/binary_golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	byName, seen := map[string]*Request{}, map[string]bool{}
	next := 0
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		column := strings.Split(line, " | ")
		data, err := hex.DecodeString(column[2])
		if err != nil {
			t.Fatal(line, err)
		}
		says := column[1] + " | " + column[3]
		if column[0] == "request" {
			expect(t, "a line", says, requests[next].says)
			request := requests[next].request
			next++
			expect(t, line, hex.EncodeToString(request.Encode()), column[2])
			expect(t, line, request.refused, nil)
			if byName[column[1]] == nil {
				byName[column[1]] = request
			}
			continue
		}
		request, expected := byName[column[1]], replies[says]
		if _, known := replies[says]; !known {
			t.Fatal("no such reply here: ", says)
		}
		seen[says] = true
		for length := range data {
			if outcome, err := request.Decode(bytes.NewReader(data[:length])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%d bytes of %s: %v, %v", length, line, outcome, err)
			}
		}
		behind := bytes.NewReader(append(data, "behind"...))
		outcome, err := request.Decode(behind)
		expect(t, line, err, nil)
		expect(t, line, outcome, expected)
		expect(t, "what is left behind "+line, behind.Len(), len("behind"))
	}
	expect(t, "the requests", next, len(requests))
	expect(t, "the replies", len(seen), len(replies))
	t.Logf("%d requests, %d replies", len(requests), len(replies))
}

// fake is a node that answers one request after the other with these bytes; "" hangs up.
type fake struct {
	address string
	seen    chan string
}

func newFake(t *testing.T, replies ...string) fake {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	f := fake{listener.Addr().String(), make(chan string, 16)}
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			for {
				length, err := conn.Read(buffer)
				if err != nil {
					break
				}
				f.seen <- hex.EncodeToString(buffer[:length])
				if len(replies) == 0 {
					continue // Silent from now on.
				}
				reply, _ := hex.DecodeString(replies[0])
				if replies = replies[1:]; len(reply) == 0 {
					break
				}
				conn.Write(reply)
			}
			conn.Close()
		}
	}()
	return f
}

func nobody(t *testing.T) fake {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	return fake{address: listener.Addr().String()}
}

const (
	storedReply   = "01080000000700000000000000"
	sessionReply  = "01080000000500000000000000"
	noLeaderReply = "0403000000776879"
	expiredReply  = "0a03000000776879"
	hangUp        = ""
)

func TestFailingOver(t *testing.T) {
	client := func(options Options, nodes ...fake) *Client {
		addresses := []string{}
		for _, node := range nodes {
			addresses = append(addresses, node.address)
		}
		c := New(options, addresses...)
		t.Cleanup(c.Close)
		return c
	}
	write := func(c *Client) Outcome { return c.Pipeline(set("a", "1"))[0] }
	plain, session := Options{Timeout: 2 * time.Second}, Options{Timeout: 2 * time.Second, Session: true}
	isUnknown := func(what string, outcome Outcome) {
		t.Helper()
		var unknown *OutcomeUnknown
		expect(t, what, errors.As(outcome.Err, &unknown), true)
	}
	isUnreachable := func(what string, outcome Outcome) {
		t.Helper()
		var unreachable *Unreachable
		expect(t, what, errors.As(outcome.Err, &unreachable), true)
	}

	// A read whose reply is lost goes to the next address.
	item, err := client(plain, newFake(t, hangUp), newFake(t, "0300000000")).Get(key("a"))
	expect(t, "read", []any{item, err}, []any{(*Item)(nil), nil})
	// A write does not: it may have taken effect.
	other := newFake(t, storedReply)
	isUnknown("lost write", write(client(plain, newFake(t, hangUp), other)))
	expect(t, "not sent again", len(other.seen), 0)
	// With session and sequence it does, with the same ones.
	lost := newFake(t, sessionReply, hangUp)
	other = newFake(t, storedReply)
	expect(t, "stamped", write(client(session, lost, other)), isSet(7))
	<-lost.seen
	expect(t, "the same bytes", <-other.seen, <-lost.seen)
	// A session that has expired is replaced; surely nothing was executed.
	expired := newFake(t, sessionReply, expiredReply, sessionReply, storedReply)
	expect(t, "expired", write(client(session, expired)), isSet(7))
	// But not if an attempt before may have been executed.
	isUnknown("uncertain", write(client(session, newFake(t, sessionReply, hangUp), newFake(t, expiredReply))))
	// Nothing was sent: the next address.
	expect(t, "nobody there", write(client(plain, nobody(t), newFake(t, storedReply))), isSet(7))
	// Surely not applied, but a write without a stamp is not repeated by itself.
	other = newFake(t, storedReply)
	expect(t, "no leader", write(client(plain, newFake(t, noLeaderReply), other)), no(NoLeader, "why"))
	expect(t, "not sent again", len(other.seen), 0)
	isUnreachable("all gone", write(client(plain, nobody(t), nobody(t))))
	// What breaks a limit is refused before it is sent, also inside of others.
	var refused *Refused
	for _, tooLong := range []*Request{Get(key(strings.Repeat("k", 65537)), Stale), Batch(Stale, nil, Delete(key(strings.Repeat("k", 65537))))} {
		_, err = client(plain, nobody(t)).Do(tooLong)
		expect(t, "too long", errors.As(err, &refused) && refused.Kind == Invalid, true)
	}
	// A node that does not answer.
	hasty := Options{Timeout: 100 * time.Millisecond}
	isUnknown("silent", write(client(hasty, newFake(t))))
	isUnreachable("silent to a read", client(hasty, newFake(t)).Pipeline(Get(key("a"), Linearizable))[0])
}

// must returns the value of a call that has to succeed.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestLive(t *testing.T) {
	if *liveAddress == "" {
		t.Skip("no -live HOST:PORT")
	}
	cache := New(Options{Session: true}, strings.Split(*liveAddress, ",")...)
	defer cache.Close()
	a, b, n := key("go:a"), key("go:b"), key("go:n")
	put := func(key Key, value string, e Expiry, c Condition) bool {
		return must(cache.Set(key, []byte(value), SetOptions{e, c})).Stored
	}
	isRefused := func(what string, err error, kind Kind) {
		t.Helper()
		var refused *Refused
		if !errors.As(err, &refused) || refused.Kind != kind {
			t.Fatalf("%s: %v", what, err)
		}
	}
	expect(t, "ping", cache.Ping(), nil)
	forget := func() { cache.Pipeline(Delete(a), Delete(b), Delete(n)) }
	forget()
	defer forget()
	expect(t, "get nothing", must(cache.Get(a)), (*Item)(nil))
	result := must(cache.Set(a, []byte{0, 255}, SetOptions{}))
	expect(t, "get", must(cache.Get(a)), &Item{[]byte{0, 255}, result.Version})
	expect(t, "get stale", must(cache.Do(Get(a, Stale))), any(&Item{[]byte{0, 255}, result.Version}))
	left, there, err := cache.TTL(a)
	expect(t, "ttl of what stays", []any{left, there, err}, []any{NoDeadline, true, nil})
	expect(t, "set", put(a, "1", After(time.Minute), Condition{}), true)
	if left, _, err = cache.TTL(a); left <= 0 || left > time.Minute || err != nil {
		t.Fatal("ttl", left, err)
	}
	expect(t, "persist", []bool{must(cache.Persist(a)), must(cache.Persist(a))}, []bool{true, false})
	expect(t, "expire", []bool{must(cache.Expire(a, After(time.Minute))), must(cache.Expire(b, After(1)))}, []bool{true, false})
	expect(t, "nx, xx", []bool{put(a, "2", Expiry{}, IfAbsent), put(b, "2", Expiry{}, IfPresent)}, []bool{false, false})
	// It lives shortly, and then never again.
	put(b, "short", After(50*time.Millisecond), Condition{})
	time.Sleep(200 * time.Millisecond)
	_, there, err = cache.TTL(b)
	expect(t, "expired", []any{must(cache.Exists(b)), there, err}, []any{false, false, nil})
	expect(t, "incr", []int64{must(cache.Incr(n, 1)), must(cache.Incr(n, -3))}, []int64{1, -2})
	put(b, "no number", Expiry{}, Condition{})
	_, err = cache.Incr(b, 1)
	isRefused("incr of text", err, NotAnInteger)
	// Compare and set, by value and by version.
	expect(t, "cas", put(a, "3", Expiry{}, IfValue([]byte("2"))), false)
	expect(t, "cas", put(a, "3", Expiry{}, IfValue([]byte("1"))), true)
	version := must(cache.Get(a)).Version
	expect(t, "cas by version", put(a, "4", Expiry{}, IfVersion(version)), true)
	expect(t, "and again", put(a, "5", Expiry{}, IfVersion(version)), false)
	expect(t, "mset", cache.MSet(Pair{a, []byte("x")}, Pair{b, []byte("y")}), nil)
	items := must(cache.MGet(a, key("go:none"), b))
	expect(t, "mget", []any{string(items[0].Value), items[1], string(items[2].Value)}, []any{"x", (*Item)(nil), "y"})
	guards := []Guard{{a, items[0].Version}}
	outcomes := must(cache.Batch(guards, set(a.Name, "z"), Incr(a, 1), Get(b, Linearizable)))
	isRefused("in a batch", outcomes[1].Err, NotAnInteger)
	_, err = cache.Batch(guards, Delete(a))
	isRefused("its guard", err, GuardFailed)
	// Many at once, in order.
	must(cache.Delete(n))
	many := make([]*Request, 1000)
	for i := range many {
		many[i] = Incr(n, 1)
	}
	for i, outcome := range cache.Pipeline(many...) {
		expect(t, "pipeline", outcome, some(int64(i+1)))
	}
	big := bytes.Repeat([]byte("v"), 4<<20)
	get := Get(a, Linearizable)
	for _, outcome := range cache.Pipeline(Set(a, big, SetOptions{}), get, get, get, get)[1:] {
		if outcome.Err != nil || !bytes.Equal(outcome.Value.(*Item).Value, big) {
			t.Fatal("large values", outcome.Err)
		}
	}
	// A write that is sent twice takes effect once.
	session := must(cache.Do(OpenSession())).(uint64)
	add := Stamped(session, 1, Incr(n, 1))
	sums := cache.Pipeline(add, add, Stamped(session, 2, Incr(n, 1)))
	expect(t, "session", sums, []Outcome{some(int64(1001)), some(int64(1001)), some(int64(1002))})
	_, err = cache.Do(Stamped(1<<63, 1, Incr(n, 1)))
	isRefused("no such session", err, SessionExpired)
	// The classic three.
	classic := cache.Pipeline(ClassicSet(a.Name, []byte("c"), 60), ClassicGet(a.Name))
	expect(t, "classic", classic, []Outcome{{}, some([]byte("c"))})
	// The cluster.
	members, status := must(cache.Members()), must(cache.Status())
	expect(t, "members", status.Members, members)
	names := []string{}
	for _, member := range members {
		names = append(names, member.Name)
	}
	sort.Strings(names)
	if at := sort.SearchStrings(names, status.Name); at == len(names) || names[at] != status.Name || status.Commit > status.Last {
		t.Fatalf("%v, %+v", names, status)
	}
	isRefused("leave", cache.Leave("nobody"), NotAllowed)
	isRefused("transfer", cache.Transfer("nobody"), NotAllowed)
	isRefused("join", cache.Join("ghost", nobody(t).address), NotAllowed)
	if must(cache.Count(0)) < 2 {
		t.Fatal("count")
	}
}
