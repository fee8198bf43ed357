// Package raftcache is a client of raftcache, with nothing but the standard library.
//
//	cache := raftcache.New(raftcache.Options{Session: true}, "127.0.0.1:3001", "127.0.0.1:3002")
//	defer cache.Close()
//	in10s := raftcache.SetOptions{Expiry: raftcache.After(10 * time.Second)}
//	_, err := cache.Set(raftcache.K("greeting"), []byte("hello"), in10s)
//	item, err := cache.Get(raftcache.K("greeting")) // nil if there is none
//	outcomes := cache.Pipeline(raftcache.Incr(one, 1), raftcache.Incr(two, 1))
//
// It speaks the framed binary protocol; src/protocol/binary.rs draws the bytes.
// A Request is bytes plus how to read the reply, because a reply does not say
// what it replies to. The functions of this package make them; a Client sends
// them, many at once with Pipeline, and has a typed method for each.
//
// Any node answers any request, so a client has one connection. The next address
// is tried only if that cannot execute anything twice: nothing was sent, or the
// request is a read, or it carries a session and a sequence by which the cluster
// recognises it, which Options.Session gives to every write. Hence three errors:
//
//   - *Unreachable: no node answered, and nothing took effect;
//   - *Refused: a node said no, with kind and message, and nothing took effect;
//   - *OutcomeUnknown: it may or may not have taken effect.
//
// Pitfalls: a write of a pipeline that had to be sent again may take effect after those
// behind it; a version of 0 is an absent key.
//
// A client may be used by several goroutines, which then take turns. Missing on
// purpose: a pool, contexts, and waiting for a leader.
package raftcache

import (
	"bufio"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"
)

// Unreachable: no node answered, and nothing took effect.
type Unreachable struct{ Why string }

// OutcomeUnknown: it may or may not have taken effect.
type OutcomeUnknown struct{ Why string }

// Refused: a node said no, without effect.
type Refused struct {
	Kind    Kind
	Message string
}

func (e *Unreachable) Error() string    { return "unreachable: " + e.Why }
func (e *OutcomeUnknown) Error() string { return "outcome unknown: " + e.Why }
func (e *Refused) Error() string        { return fmt.Sprintf("%s: %s", e.Kind, e.Message) }

// Kind is why a node refused: the status byte.
type Kind byte

// The kinds.
const (
	Invalid        Kind = 2
	NoLeader       Kind = 4
	OutOfMemory    Kind = 6
	DiskFull       Kind = 7
	Busy           Kind = 8
	SessionExpired Kind = 10
	NotAllowed     Kind = 11
	NotServing     Kind = 12
	GuardFailed    Kind = 13
	NotAnInteger   Kind = 14
	Overflow       Kind = 15
	InvalidExpiry  Kind = 16
)

var kinds = map[Kind]string{
	Invalid: "invalid", NoLeader: "no leader", OutOfMemory: "out of memory", DiskFull: "disk full", Busy: "busy",
	SessionExpired: "session expired", NotAllowed: "refused", NotServing: "not serving", GuardFailed: "guard failed",
	NotAnInteger: "not an integer", Overflow: "overflow", InvalidExpiry: "invalid expiry",
}

func (k Kind) String() string { return kinds[k] }

const (
	keyBytes, valueBytes, nameBytes = 64 << 10, 16 << 20, 1 << 10
	requestBytes, replyBytes        = 32 << 20, 64 << 20
	batchCommands                   = 10_000
	// NoDeadline is what TTL says of a key that stays.
	NoDeadline = time.Duration(-1)
)

// Item is a value and the version it has.
type Item struct {
	Value   []byte
	Version uint64
}

// SetResult says whether a Set took effect, and the version the key has.
type SetResult struct {
	Stored  bool
	Version uint64
}

// Outcome is the result of a request, or why there is none. What the value is
// depends on the request; nil is an absent key, or nothing to say.
type Outcome struct {
	Value any
	Err   error
}

// Member is one of the cluster.
type Member struct {
	Name                       string
	Node                       *big.Int
	PeerAddress, ClientAddress string
	Voter, Leader              bool
}

// Status is how one node is.
type Status struct {
	Name                                     string
	Node, Cluster                            *big.Int
	Role, Leader                             string
	Term, Last, Durable, Commit, Applied     uint64
	LogBytes, Keys, MemoryBytes, MemoryLimit uint64
	StateHash, LogTimeMs                     uint64
	ClockOffsetMs                            int64
	Members                                  []Member
	Warnings                                 []string
}

var roles = []string{"follower", "candidate", "leader", "learner", "joining"}

// Options of a client; the zero value will do.
type Options struct {
	// Timeout is for a connection and for each reply. The default of 5 s is more
	// than a node takes to say that it cannot.
	Timeout time.Duration
	// Session stamps every write, so that it may be sent again.
	Session bool
}

// Client is a client of the nodes at its addresses.
type Client struct {
	lock      sync.Mutex
	addresses []string
	options   Options
	at        int // which address is connected, or to be tried next
	conn      *connection
	session   uint64 // 0 for none
	sequence  uint64
}

// New returns a client of the nodes at these addresses, each host:port. It
// connects when it first has to.
func New(options Options, addresses ...string) *Client {
	if options.Timeout == 0 {
		options.Timeout = 5 * time.Second
	}
	return &Client{addresses: addresses, options: options}
}

// Close ends the connection. The client may be used again.
func (c *Client) Close() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.disconnect()
}

// Do executes one request.
func (c *Client) Do(q *Request) (any, error) {
	outcome := c.Pipeline(q)[0]
	return outcome.Value, outcome.Err
}

// Pipeline sends all requests before the first reply is awaited, and returns an
// outcome for each.
func (c *Client) Pipeline(requests ...*Request) []Outcome {
	c.lock.Lock()
	defer c.lock.Unlock()
	attempts := make([]*attempt, len(requests))
	for i, q := range requests {
		attempts[i] = newAttempt(q)
	}
	c.settle(attempts)
	outcomes := make([]Outcome, len(attempts))
	for i, a := range attempts {
		outcomes[i] = a.outcome
	}
	return outcomes
}

func (c *Client) settle(attempts []*attempt) {
	// Twice, because a session that was idle may have expired.
	for round := 0; round < 2; round++ {
		if err := c.stamp(attempts); err != nil {
			for _, a := range unsettled(attempts) {
				a.failed(err)
			}
			return
		}
		c.run(attempts)
		again := false
		for _, a := range attempts {
			if a.needsAnotherSession() {
				a.request, a.settled, again = a.asked, false, true
			}
		}
		if !again {
			return
		}
		c.session = 0
	}
}

func (c *Client) stamp(attempts []*attempt) error {
	for _, a := range unsettled(attempts) {
		if !c.options.Session || a.request.kind != write {
			continue
		}
		if c.session == 0 {
			opening := newAttempt(OpenSession())
			c.run([]*attempt{opening})
			if opening.outcome.Err != nil {
				return opening.outcome.Err
			}
			c.session, c.sequence = opening.outcome.Value.(uint64), 0
		}
		c.sequence++
		a.request = Stamped(c.session, c.sequence, a.asked)
	}
	return nil
}

// run tries each address once, until every request is settled; that of an old
// connection once more at the end, because the node may have restarted.
func (c *Client) run(attempts []*attempt) {
	rounds := len(c.addresses)
	if c.conn != nil {
		rounds++
	}
	for ; rounds > 0 && len(unsettled(attempts)) > 0; rounds-- {
		if err := c.connect(); err != nil {
			for _, a := range unsettled(attempts) {
				a.unreached(err.Error())
			}
		} else if err := c.conn.exchange(unsettled(attempts), c.options.Timeout); err != nil {
			c.disconnect()
		}
		if len(unsettled(attempts)) > 0 {
			c.disconnect()
			c.at = (c.at + 1) % len(c.addresses)
		}
	}
}

func (c *Client) connect() error {
	if c.conn != nil && c.conn.isClean() {
		return nil
	}
	c.disconnect()
	address := strings.TrimRight(strings.TrimPrefix(c.addresses[c.at], "http://"), "/")
	conn, err := net.DialTimeout("tcp", address, c.options.Timeout)
	if err == nil {
		c.conn = &connection{Conn: conn, input: bufio.NewReaderSize(conn, 64<<10)}
	}
	return err
}

func (c *Client) disconnect() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

type connection struct {
	net.Conn
	input *bufio.Reader
	used  time.Time
}

// A connection at rest for longer is looked at before it is used again.
const rest = time.Millisecond

// isClean: at rest, and not closed by the node meanwhile, as far as can be known.
func (c *connection) isClean() bool {
	if time.Since(c.used) < rest {
		return c.input.Buffered() == 0
	}
	// A moment, because after a deadline that has passed the socket is not read at all.
	c.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	_, err := c.input.Peek(1)
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// exchange sends and receives side by side: who wrote a long pipeline to its end
// before reading would wait for a node that waits for being read.
func (c *connection) exchange(attempts []*attempt, timeout time.Duration) error {
	done := make(chan struct{})
	c.SetWriteDeadline(time.Time{})
	go func() {
		defer close(done)
		output := bufio.NewWriterSize(c, 64<<10)
		for _, a := range attempts {
			if _, err := output.Write(a.request.Encode()); err != nil {
				return
			}
		}
		output.Flush()
	}()
	var failure error
	for _, a := range attempts {
		if failure == nil {
			var outcome Outcome
			c.SetReadDeadline(time.Now().Add(timeout))
			if outcome, failure = a.request.Decode(c.input); failure == nil {
				a.answered(outcome)
				continue
			}
			failure = fmt.Errorf("%s: %w", c.RemoteAddr(), failure)
			c.Close()
		}
		a.lost(failure.Error())
	}
	<-done
	c.used = time.Now()
	return failure
}

// attempt is one request on its way through the addresses.
type attempt struct {
	asked, request *Request
	uncertain      bool // it may have taken effect: only a result settles it
	settled        bool // no more attempts
	outcome        Outcome
}

func newAttempt(q *Request) *attempt {
	a := &attempt{asked: q, request: q, outcome: Outcome{Err: &Unreachable{"no address"}}}
	if q.refused != nil {
		a.outcome.Err, a.settled = q.refused, true
	}
	return a
}

func unsettled(attempts []*attempt) (found []*attempt) {
	for _, a := range attempts {
		if !a.settled {
			found = append(found, a)
		}
	}
	return found
}

func (a *attempt) repeatable() bool { return a.request.kind == read || a.request.kind == stampedWrite }

// lost: the connection failed after the request was handed to it.
func (a *attempt) lost(why string) {
	a.uncertain = a.uncertain || a.request.kind != read
	a.settled = !a.repeatable()
	a.failed(&Unreachable{why})
}

func (a *attempt) answered(outcome Outcome) {
	a.outcome, a.settled = outcome, true
	anotherMayDo := false
	switch err := outcome.Err.(type) {
	case nil:
		return
	case *OutcomeUnknown:
		a.uncertain, anotherMayDo = true, true
	case *Refused:
		anotherMayDo = err.Kind == NoLeader || err.Kind == NotServing
	}
	a.settled = !(a.repeatable() && anotherMayDo)
	a.failed(outcome.Err)
}

// unreached: no node this time; what another one said before says more.
func (a *attempt) unreached(why string) {
	if _, refused := a.outcome.Err.(*Refused); !refused {
		a.failed(&Unreachable{why})
	}
}

// failed: err says that this attempt had no effect; an earlier one may have.
func (a *attempt) failed(err error) {
	if a.uncertain {
		err = &OutcomeUnknown{err.Error()}
	}
	a.outcome = Outcome{Err: err}
}

// needsAnotherSession: surely not executed, and the client's own session is to blame.
func (a *attempt) needsAnotherSession() bool {
	refused, ok := a.outcome.Err.(*Refused)
	return ok && refused.Kind == SessionExpired && a.request != a.asked
}
