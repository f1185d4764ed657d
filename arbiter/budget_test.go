package arbiter

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

func TestBudgets(t *testing.T) {
	t.Parallel()
	b := newBudgets(Budget{Held: 1, Armed: 1, BorrowedBytes: 100})
	if err := b.hold(); err != nil {
		t.Error(err)
	}
	if err := b.hold(); err == nil || !strings.Contains(err.Error(), "held = 1") {
		t.Errorf("a second hold: %v", err)
	}
	b.unhold()
	if err := b.hold(); err != nil {
		t.Error(err)
	}
	if err := b.borrow(60); err != nil {
		t.Error(err)
	}
	if err := b.borrow(60); err == nil {
		t.Error("120 of 100 bytes were lent")
	}
	if n, _ := b.borrowable().Bytes(); n != 40 {
		t.Errorf("%d bytes are left", n)
	}
	b.giveBack(1000) // more than was lent is all of it
	if n, _ := b.borrowable().Bytes(); n != 100 {
		t.Errorf("%d bytes are left", n)
	}
}

// Dumps wait for each other; other actions do not.
func TestBudgetDumpsQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudgets(Budget{Dumps: 1})
		leave, err := b.enterDump(t.Context(), "core-dump")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.enterDump(t.Context(), "wait"); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.enterDump(ctx, "heap-dump"); err == nil {
			t.Error("two dumps at once")
		}
		time.AfterFunc(time.Hour, leave)
		if _, err := b.enterDump(t.Context(), "heap-dump"); err != nil {
			t.Error(err)
		}
	})
}

// A key is never worked on twice at once, and is done again if it was added
// meanwhile.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := newQueue()
		var mu sync.Mutex
		busy, done := map[string]bool{}, map[string]int{}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				q.work(ctx, func(_ context.Context, key string) {
					mu.Lock()
					if busy[key] {
						t.Errorf("%s twice at once", key)
					}
					busy[key] = true
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					busy[key] = false
					done[key]++
					mu.Unlock()
				})
			})
		}
		for _, k := range []string{"a", "b", "c", "d"} {
			q.add(k)
		}
		time.Sleep(time.Second / 2)
		q.add("a") // is being worked on
		q.add("a")
		q.add("d") // still waits
		time.Sleep(10 * time.Second)
		cancel()
		wg.Wait()
		for k, want := range map[string]int{"a": 2, "b": 1, "c": 1, "d": 1} {
			if done[k] != want {
				t.Errorf("%s was done %d times, want %d", k, done[k], want)
			}
		}
	})
}

func TestCurve(t *testing.T) {
	t.Parallel()
	o := RecorderOptions{Interval: time.Second, Window: 10 * time.Second}
	var c curve
	at := time.Unix(0, 0)
	use := func(n uint64) cgroup.Usage {
		return cgroup.Usage{Current: n, Unreclaimable: n / 2, BaseLimit: policy.LimitOf(100)}
	}
	c.add(at, use(49), o) // too little to be worth it
	for range 50 {
		at = at.Add(500 * time.Millisecond)
		c.add(at, use(80), o)
	}
	if n := len(c.points); n != 11 {
		t.Errorf("%d points in 10 s at one a second", n)
	}
	lines := strings.Split(strings.TrimSpace(c.csv()), "\n")
	if lines[0] != "time,usage_bytes,unreclaimable_bytes" || lines[1] != "1970-01-01T00:00:14.500Z,80,40" {
		t.Errorf("csv begins %q", lines[:2])
	}
}
