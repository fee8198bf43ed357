package raftcache

// What a node answers: a status byte, a length, a payload.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"time"
)

// errMalformed: the bytes are not this protocol; the connection is of no use.
var errMalformed = errors.New("malformed reply")

// reader takes fields off the front of a payload, never more than there are.
// What is taken after the first failure is zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(length uint64) []byte {
	if length > uint64(len(r.rest)) {
		r.rest, r.err = nil, errMalformed
	}
	if r.err != nil {
		return nil
	}
	taken := r.rest[:length]
	r.rest = r.rest[length:]
	return taken
}

func (r *reader) number(size uint64) (number uint64) {
	for i, b := range r.take(size) {
		number |= uint64(b) << (8 * i)
	}
	return number
}

func (r *reader) all() []byte    { return r.take(uint64(len(r.rest))) }
func (r *reader) u64() uint64    { return r.number(8) }
func (r *reader) bytes() []byte  { return r.take(r.number(4)) }
func (r *reader) string() string { return string(r.bytes()) }

func (r *reader) u128() *big.Int {
	low, high := new(big.Int).SetUint64(r.u64()), new(big.Int).SetUint64(r.u64())
	return low.Or(low, high.Lsh(high, 64))
}

// versioned checks the first byte of members and status. Both may grow: what
// stands behind the known fields is skipped.
func (r *reader) versioned() *reader {
	inner := &reader{rest: r.all(), err: r.err}
	if inner.number(1) != 1 {
		inner.rest, inner.err = nil, errMalformed
	}
	return inner
}

// longest is the most a Duration can say.
const longest = time.Duration(1<<63 - 1)

// A form says how the payload of status 1 is read.
type form int

const (
	nothing form = iota
	number
	timeLeft
	truth
	stored
	session
	item
	plainValue
	memberList
	nodeStatus
	list
)

func (q *Request) read(f form, r *reader) any {
	switch f {
	case number:
		return int64(r.u64())
	case timeLeft:
		if ms := int64(r.u64()); ms >= 0 {
			if ms > int64(longest/time.Millisecond) {
				return longest
			}
			return time.Duration(ms) * time.Millisecond
		}
		return NoDeadline
	case truth:
		return r.u64() != 0
	case stored:
		return SetResult{true, r.u64()}
	case session:
		return r.u64()
	case item:
		return &Item{Version: r.u64(), Value: r.all()}
	case plainValue:
		return r.all()
	case memberList:
		return r.members()
	case nodeStatus:
		return r.status()
	case list:
		return q.outcomes(r)
	}
	return nil
}

func (q *Request) outcomes(r *reader) []Outcome {
	if r.number(4) != uint64(len(q.forms)) {
		r.err = errMalformed
		return nil
	}
	outcomes := make([]Outcome, len(q.forms))
	for i, f := range q.forms {
		status, payload := byte(r.number(1)), r.bytes()
		var err error
		if outcomes[i], err = q.outcome(f, status, payload); err != nil {
			r.err = err
		}
	}
	return outcomes
}

func (r *reader) members() []Member {
	inner := r.versioned()
	members := []Member{}
	for left := inner.number(4); left > 0 && inner.err == nil; left-- {
		record := &reader{rest: inner.bytes(), err: inner.err}
		member := Member{Name: record.string(), Node: record.u128(), PeerAddress: record.string(), ClientAddress: record.string()}
		flags := record.number(1)
		member.Voter, member.Leader = flags&1 != 0, flags&2 != 0
		members, inner.err = append(members, member), record.err
	}
	r.err = inner.err
	return members
}

func (r *reader) status() *Status {
	inner := r.versioned()
	s := &Status{Name: inner.string(), Node: inner.u128(), Cluster: inner.u128()}
	role := inner.number(1)
	if role >= uint64(len(roles)) {
		r.err = errMalformed
		return nil
	}
	s.Role, s.Leader = roles[role], inner.string()
	for _, field := range []*uint64{
		&s.Term, &s.Last, &s.Durable, &s.Commit, &s.Applied, &s.LogBytes, &s.Keys, &s.MemoryBytes, &s.MemoryLimit,
		&s.StateHash, &s.LogTimeMs,
	} {
		*field = inner.u64()
	}
	s.ClockOffsetMs = int64(inner.u64())
	members := &reader{rest: inner.bytes(), err: inner.err}
	s.Members = members.members()
	for left := inner.number(4); left > 0 && inner.err == nil; left-- {
		s.Warnings = append(s.Warnings, inner.string())
	}
	if r.err = inner.err; r.err == nil {
		r.err = members.err
	}
	return s
}

// outcome says what one reply means. The error is about the bytes themselves.
func (q *Request) outcome(f form, status byte, payload []byte) (Outcome, error) {
	r := &reader{rest: payload}
	var result any
	switch _, refused := kinds[Kind(status)]; {
	case status == 0:
		return Outcome{}, errMalformed
	case status == 1:
		result = q.read(f, r)
	case status == 3 && (f == item || f == timeLeft || f == plainValue):
	case status == 9 && f == stored:
		result = SetResult{false, r.u64()}
	case q.classic && status == 2:
		return Outcome{Err: &OutcomeUnknown{"the classic reply gives no reason"}}, nil
	case refused:
		return Outcome{Err: &Refused{Kind(status), string(payload)}}, nil
	default:
		// A status of a later version says nothing about the outcome.
		return Outcome{Err: &OutcomeUnknown{string(payload)}}, nil
	}
	if len(r.rest) > 0 {
		r.err = errMalformed
	}
	return Outcome{Value: result}, r.err
}

// Decode reads exactly one reply.
func (q *Request) Decode(from io.Reader) (Outcome, error) {
	var head [5]byte
	if q.classic && q.form == nothing {
		if _, err := io.ReadFull(from, head[:1]); err != nil {
			return Outcome{}, err
		}
		return q.outcome(nothing, head[0], nil)
	}
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return Outcome{}, err
	}
	length := binary.LittleEndian.Uint32(head[1:])
	if length > replyBytes {
		return Outcome{}, errMalformed
	}
	// Grows with what arrives, not with what is announced.
	var payload bytes.Buffer
	if _, err := io.CopyN(&payload, from, int64(length)); err != nil {
		return Outcome{}, err
	}
	return q.outcome(q.form, head[0], payload.Bytes())
}
