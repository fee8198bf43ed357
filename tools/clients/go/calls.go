package raftcache

// The requests as typed calls.

import "time"

func do[T any](c *Client, q *Request) (T, error) {
	value, err := c.Do(q)
	result, _ := value.(T) // nil for an absent key
	return result, err
}

func doNothing(c *Client, q *Request) error {
	_, err := c.Do(q)
	return err
}

// Ping asks whether a node answers.
func (c *Client) Ping() error { return doNothing(c, Ping()) }

// Get returns value and version, nil if the key is absent.
func (c *Client) Get(key Key) (*Item, error) { return do[*Item](c, Get(key, Linearizable)) }

// Set stores a value; whether it did, and the version.
func (c *Client) Set(key Key, value []byte, o SetOptions) (SetResult, error) {
	return do[SetResult](c, Set(key, value, o))
}

// Delete removes a key; whether it was there.
func (c *Client) Delete(key Key) (bool, error) { return do[bool](c, Delete(key)) }

// Exists says whether a key is there.
func (c *Client) Exists(key Key) (bool, error) { return do[bool](c, Exists(key, Linearizable)) }

// Expire gives a key a deadline; whether it was there.
func (c *Client) Expire(key Key, e Expiry) (bool, error) { return do[bool](c, Expire(key, e)) }

// Persist takes a key's deadline away; whether it had one.
func (c *Client) Persist(key Key) (bool, error) { return do[bool](c, Persist(key)) }

// TTL returns the time left, or NoDeadline; false if there is no such key.
func (c *Client) TTL(key Key) (time.Duration, bool, error) {
	value, err := c.Do(TTL(key, Linearizable))
	left, there := value.(time.Duration)
	return left, there, err
}

// Incr adds to a number; the new one.
func (c *Client) Incr(key Key, by int64) (int64, error) { return do[int64](c, Incr(key, by)) }

// MGet returns the items of several keys at one moment, nil for what is absent.
func (c *Client) MGet(keys ...Key) ([]*Item, error) {
	outcomes, err := do[[]Outcome](c, MGet(Linearizable, keys...))
	items := make([]*Item, len(outcomes))
	for i, outcome := range outcomes {
		items[i], _ = outcome.Value.(*Item)
	}
	return items, err
}

// MSet stores several values at one moment.
func (c *Client) MSet(pairs ...Pair) error { return doNothing(c, MSet(pairs...)) }

// Count returns how many keys a database has.
func (c *Client) Count(db byte) (int64, error) { return do[int64](c, Count(db, Linearizable)) }

// Clear removes all keys of a database, or of AllDatabases.
func (c *Client) Clear(db byte) error { return doNothing(c, Clear(db)) }

// Batch executes commands together; an outcome for each.
func (c *Client) Batch(guards []Guard, commands ...*Request) ([]Outcome, error) {
	return do[[]Outcome](c, Batch(Linearizable, guards, commands...))
}

// Join adds a node to the cluster.
func (c *Client) Join(name, peerAddress string) error { return doNothing(c, Join(name, peerAddress)) }

// Leave removes a member for good, by its name or one of its addresses.
func (c *Client) Leave(name string) error { return doNothing(c, Leave(name)) }

// Members returns who belongs to the cluster.
func (c *Client) Members() ([]Member, error) { return do[[]Member](c, Members()) }

// Transfer hands leadership to a member, "" for the most caught-up one.
func (c *Client) Transfer(to string) error { return doNothing(c, Transfer(to)) }

// Status returns how the node that answers is.
func (c *Client) Status() (*Status, error) { return do[*Status](c, GetStatus()) }
