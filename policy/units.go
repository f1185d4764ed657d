package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// A Limit is a memory limit in bytes, or none ("max"). The zero value is none.
type Limit struct {
	bytes uint64
	set   bool
}

// NoLimit is the limit of a cgroup that has none.
var NoLimit = Limit{}

// LimitOf is a limit of n bytes.
func LimitOf(n uint64) Limit { return Limit{bytes: n, set: true} }

// Bytes is the limit in bytes, and whether there is one.
func (l Limit) Bytes() (n uint64, ok bool) { return l.bytes, l.set }

// String is the limit as cgroup v2 writes it: a decimal count of bytes or "max".
func (l Limit) String() string {
	if !l.set {
		return "max"
	}
	return strconv.FormatUint(l.bytes, 10)
}

// Less reports whether l is tighter than m.
func (l Limit) Less(m Limit) bool { return l.set && (!m.set || l.bytes < m.bytes) }

// MarshalJSON writes a number of bytes, or null for no limit.
func (l Limit) MarshalJSON() ([]byte, error) {
	if !l.set {
		return []byte("null"), nil
	}
	return strconv.AppendUint(nil, l.bytes, 10), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Limit) UnmarshalJSON(b []byte) error {
	var n *uint64
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	*l = NoLimit
	if n != nil {
		*l = LimitOf(*n)
	}
	return nil
}

// A Size is an amount of memory as policies write it: bytes ("64MiB") or a
// share of the container's limit ("25%"). Exactly one of the two is not zero;
// both are zero where the key was left out.
type Size struct {
	Bytes   uint64
	Percent float64 // 25 for "25%"
}

// IsZero reports whether the size was left out or is nothing.
func (s Size) IsZero() bool { return s == Size{} }

// Of is the size in bytes for a container with the given limit in bytes.
func (s Size) Of(limitBytes uint64) uint64 {
	if s.Percent > 0 {
		return uint64(min(float64(limitBytes)*s.Percent/100, 1<<63))
	}
	return s.Bytes
}
