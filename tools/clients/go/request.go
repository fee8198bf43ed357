package raftcache

// What a client asks: an opcode, a length, fields. Every function here makes a
// request for Client.Do and Client.Pipeline; the typed methods are in calls.go.

import (
	"encoding/binary"
	"fmt"
	"time"
)

type kind int

const (
	read kind = iota
	write
	stampedWrite
	once
)

// Request is opcode and fields, how to read the reply, and whether it may be
// repeated. One that breaks a limit is refused before it is sent.
type Request struct {
	head, fields []byte
	form         form
	forms        []form // of the list
	kind         kind
	classic      bool
	refused      error
}

// Encode returns the bytes to send.
func (q *Request) Encode() []byte {
	if q.classic {
		return append(append([]byte{}, q.head...), q.fields...)
	}
	out := binary.LittleEndian.AppendUint32(append([]byte{}, q.head...), uint32(len(q.fields)))
	return append(out, q.fields...)
}

// build makes a request of fields, each a number of its size, or bytes with
// their length before them, or a key.
func build(head []byte, f form, k kind, fields ...any) *Request {
	q := &Request{head: head, form: f, kind: k}
	for _, field := range fields {
		switch field := field.(type) {
		case byte:
			q.fields = append(q.fields, field)
		case bool:
			q.fields = append(q.fields, map[bool]byte{true: 1}[field])
		case int:
			q.limit("batch", field, batchCommands)
			q.fields = binary.LittleEndian.AppendUint32(q.fields, uint32(field))
		case int64:
			q.fields = binary.LittleEndian.AppendUint64(q.fields, uint64(field))
		case uint64:
			q.fields = binary.LittleEndian.AppendUint64(q.fields, field)
		case Key:
			q.fields = append(q.fields, field.DB)
			q.data("key", []byte(field.Name), keyBytes)
		case classicKey:
			q.data("key", []byte(field), keyBytes)
		case string:
			q.data("name", []byte(field), nameBytes)
		case []byte:
			q.data("value", field, valueBytes)
		case raw:
			q.fields = append(q.fields, field...)
		}
	}
	q.limit("request", len(q.fields), requestBytes)
	return q
}

// raw is bytes that are encoded already.
type raw []byte

func (q *Request) data(what string, data []byte, limit int) {
	q.limit(what, len(data), limit)
	q.fields = append(binary.LittleEndian.AppendUint32(q.fields, uint32(len(data))), data...)
}

func (q *Request) limit(what string, size, limit int) {
	if size > limit && q.refused == nil {
		q.refused = &Refused{Invalid, fmt.Sprintf("a %s of %d; the limit is %d", what, size, limit)}
	}
}

// Key is a byte string in one of sixteen databases.
type Key struct {
	Name string
	DB   byte
}

// K is a key of database 0.
func K(name string) Key { return Key{Name: name} }

// Consistency is how fresh a read has to be.
type Consistency bool

// A linearizable read sees every write acknowledged before it began. A stale one
// sees what this node has, at once.
const (
	Linearizable Consistency = false
	Stale        Consistency = true
)

func reading(opcode byte, f form, c Consistency, fields ...any) *Request {
	return build([]byte{opcode}, f, read, append([]any{bool(c)}, fields...)...)
}

func writing(opcode byte, f form, fields ...any) *Request {
	return build([]byte{opcode}, f, write, fields...)
}

func asking(opcode byte, f form, k kind, fields ...any) *Request {
	return build([]byte{0x1f, opcode}, f, k, fields...)
}

// Ping asks whether a node answers.
func Ping() *Request { return build([]byte{0x10}, nothing, read) }

// Get asks for an *Item, nil if there is none.
func Get(key Key, c Consistency) *Request { return reading(0x11, item, c, key) }

// Expiry is when a key goes away by itself; the zero value is never.
type Expiry struct {
	kind byte
	ms   uint64
}

// Keep leaves a deadline as it is.
var Keep = Expiry{kind: 1}

// After is so long from when it takes effect, in whole milliseconds.
func After(d time.Duration) Expiry {
	if d < 0 {
		d = 0
	}
	return Expiry{2, uint64(d.Milliseconds())}
}

// At is a moment of the cluster's own clock.
func At(t time.Time) Expiry { return Expiry{3, uint64(t.UnixMilli())} }

func (e Expiry) encoded() raw {
	if e.kind < 2 {
		return raw{e.kind}
	}
	return binary.LittleEndian.AppendUint64(raw{e.kind}, e.ms)
}

// Condition is what must hold for a Set to take effect; the zero value is nothing.
type Condition struct {
	kind    byte
	value   []byte
	version uint64
}

// The key is absent, or present.
var (
	IfAbsent  = Condition{kind: 1}
	IfPresent = Condition{kind: 2}
)

// IfValue holds if the key holds exactly this value.
func IfValue(value []byte) Condition { return Condition{kind: 3, value: value} }

// IfVersion holds if the key has this version; 0 is absent.
func IfVersion(version uint64) Condition { return Condition{kind: 4, version: version} }

// SetOptions are for Set; the zero value stores for good, whatever is there.
type SetOptions struct {
	Expiry    Expiry
	Condition Condition
}

// Set asks for a SetResult. An earlier deadline goes, unless Keep is said.
func Set(key Key, value []byte, o SetOptions) *Request {
	fields := []any{key, value, o.Expiry.encoded(), o.Condition.kind}
	switch o.Condition.kind {
	case 3:
		fields = append(fields, o.Condition.value)
	case 4:
		fields = append(fields, o.Condition.version)
	}
	return writing(0x12, stored, fields...)
}

// Delete asks for a bool: whether it was there.
func Delete(key Key) *Request { return writing(0x13, truth, key) }

// Exists asks for a bool.
func Exists(key Key, c Consistency) *Request { return reading(0x14, truth, c, key) }

// Expire asks for a bool: whether the key was there. What is past removes it.
func Expire(key Key, e Expiry) *Request { return writing(0x15, truth, key, e.encoded()) }

// Persist asks for a bool: whether the key had a deadline.
func Persist(key Key) *Request { return writing(0x17, truth, key) }

// TTL asks for a time.Duration: what is left, or NoDeadline; nil if there is no key.
func TTL(key Key, c Consistency) *Request { return reading(0x18, timeLeft, c, key) }

// Incr asks for an int64, the new number.
func Incr(key Key, by int64) *Request { return writing(0x19, number, key, by) }

// MGet asks for []Outcome of *Item, all of one moment.
func MGet(c Consistency, keys ...Key) *Request {
	fields := []any{len(keys)}
	for _, key := range keys {
		fields = append(fields, key)
	}
	return reading(0x1a, list, c, fields...).listing(repeat(item, len(keys)))
}

// Pair is a key and its value to be.
type Pair struct {
	Key   Key
	Value []byte
}

// MSet asks for []Outcome of SetResult, all at one moment.
func MSet(pairs ...Pair) *Request {
	fields := []any{len(pairs)}
	for _, pair := range pairs {
		fields = append(fields, pair.Key, pair.Value)
	}
	q := writing(0x1b, list, fields...).listing(repeat(stored, len(pairs)))
	if len(pairs) == 0 {
		q.kind = read // It changes nothing: a node takes it for a read.
	}
	return q
}

// Count asks for an int64: the keys of a database.
func Count(db byte, c Consistency) *Request { return reading(0x1c, number, c, db) }

// AllDatabases is for Clear.
const AllDatabases byte = 0xff

// Clear removes all keys of a database.
func Clear(db byte) *Request { return writing(0x1d, nothing, db) }

// Guard is a key and the version that it must have.
type Guard struct {
	Key     Key
	Version uint64
}

// Batch asks for []Outcome, one for each command, which take effect together; it
// is refused as GuardFailed if a guard does not hold. The consistency is for a
// batch of reads, and those of its commands do not count.
func Batch(c Consistency, guards []Guard, commands ...*Request) *Request {
	fields := []any{len(guards)}
	for _, guard := range guards {
		fields = append(fields, guard.Key, guard.Version)
	}
	fields = append(fields, len(commands))
	var forms []form
	k := read
	var refused error
	for _, command := range commands {
		encoded := command.fields
		if command.kind == read && len(encoded) > 0 {
			encoded = encoded[1:] // Without consistency.
		} else if command.kind == write {
			k = write
		}
		if command.refused != nil {
			refused = command.refused
		} else if len(command.head) != 1 || command.form == list || command.classic || command.head[0] == 0x10 {
			refused = &Refused{Invalid, "only single commands go into a batch"}
		}
		fields = append(fields, raw(command.head), raw(encoded))
		forms = append(forms, command.form)
	}
	q := reading(0x1e, list, c, fields...).listing(forms)
	q.kind = k
	if refused != nil {
		q.refused = refused
	}
	return q
}

func (q *Request) listing(forms []form) *Request {
	q.forms = forms
	return q
}

func repeat(f form, count int) []form {
	forms := make([]form, count)
	for i := range forms {
		forms[i] = f
	}
	return forms
}

// OpenSession asks for a uint64. A session too many is forgotten by itself.
func OpenSession() *Request { return asking(0x01, session, read) }

// Stamped is the same write, executed once however often it is sent. The
// sequences of a session count from 1.
func Stamped(session, sequence uint64, of *Request) *Request {
	q := asking(0x02, of.form, stampedWrite, session, sequence, raw(of.head), raw(of.fields)).listing(of.forms)
	if of.kind != write {
		q.refused = &Refused{Invalid, "only a write is stamped"}
	} else if of.refused != nil {
		q.refused = of.refused
	}
	return q
}

// Join adds a node to the cluster.
func Join(name, peerAddress string) *Request { return asking(0x03, nothing, once, name, peerAddress) }

// Leave removes a member for good, by its name or one of its addresses.
func Leave(name string) *Request { return asking(0x04, nothing, once, name) }

// Members asks for a []Member.
func Members() *Request { return asking(0x05, memberList, read) }

// Transfer hands leadership to a member, "" for the most caught-up one.
func Transfer(to string) *Request { return asking(0x06, nothing, once, to) }

// GetStatus asks for the *Status of the node that answers.
func GetStatus() *Request { return asking(0x07, nodeStatus, read) }

func classic(opcode byte, f form, k kind, fields ...any) *Request {
	q := build([]byte{opcode}, f, k, fields...)
	q.classic = true
	return q
}

// ClassicSet is the oldest SET; a ttl of 0 seconds is none. Its reply is one byte.
func ClassicSet(key string, value []byte, ttlS int32) *Request {
	ttl := raw(binary.LittleEndian.AppendUint32(nil, uint32(ttlS)))
	return classic(0x01, nothing, once, classicKey(key), value, ttl)
}

// ClassicGet asks for a []byte, nil if there is no such key.
func ClassicGet(key string) *Request { return classic(0x02, plainValue, read, classicKey(key)) }

// ClassicJoin is the oldest JOIN.
func ClassicJoin(name, peerAddress string) *Request {
	return classic(0x03, nothing, once, name, peerAddress)
}

// classicKey is of database 0, which is not said.
type classicKey string
