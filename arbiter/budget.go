package arbiter

import (
	"context"
	"fmt"
	"sync"

	"github.com/arbiterd/arbiter/policy"
)

// Budget bounds what Arbiter may do to a node at once.
type Budget struct {
	Held          int    // containers standing still
	Armed         int    // containers whose kernel killer is off
	BorrowedBytes uint64 // memory above original limits
	Dumps         int    // core and heap dumps being written
}

// budgets is what is spent of a Budget.
type budgets struct {
	max   Budget
	dumps chan struct{}

	mu       sync.Mutex
	held     int
	armed    int
	borrowed uint64
}

func newBudgets(b Budget) *budgets {
	return &budgets{max: b, dumps: make(chan struct{}, max(b.Dumps, 1))}
}

// hold takes one of the held places.
func (b *budgets) hold() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held >= b.max.Held {
		return fmt.Errorf("[budget] held = %d is used up", b.max.Held)
	}
	b.held++
	return nil
}

func (b *budgets) unhold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
}

// arm takes one of the armed places.
func (b *budgets) arm() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.armed >= b.max.Armed {
		return fmt.Errorf("[budget] armed = %d is used up", b.max.Armed)
	}
	b.armed++
	return nil
}

func (b *budgets) disarm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed--
}

// borrow takes bytes from what may be lent.
func (b *budgets) borrow(bytes uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > b.max.BorrowedBytes-min(b.borrowed, b.max.BorrowedBytes) {
		return fmt.Errorf("%d bytes are more than [budget] borrowed = %d still lends (%d are lent)",
			bytes, b.max.BorrowedBytes, b.borrowed)
	}
	b.borrowed += bytes
	return nil
}

func (b *budgets) giveBack(bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.borrowed -= min(bytes, b.borrowed)
}

// borrowable is what is still to be lent.
func (b *budgets) borrowable() policy.Limit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return policy.LimitOf(b.max.BorrowedBytes - min(b.borrowed, b.max.BorrowedBytes))
}

// enterDump waits for a place among the dumps, if action is one.
func (b *budgets) enterDump(ctx context.Context, action string) (leave func(), err error) {
	if action != "core-dump" && action != "heap-dump" {
		return func() {}, nil
	}
	select {
	case b.dumps <- struct{}{}:
		return func() { <-b.dumps }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// spent is what is in use, for status and metrics.
func (b *budgets) spent() (held, armed int, borrowed uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held, b.armed, b.borrowed
}
