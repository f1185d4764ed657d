package action

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// lendingEnv is a container whose limit follows what is borrowed.
func lendingEnv(t *testing.T, limit, used uint64) *testEnv {
	t.Helper()
	e := newTestEnv(t)
	e.Facts.Limit = policy.LimitOf(limit)
	set := func(bytes uint64) {
		e.cg.mu.Lock()
		defer e.cg.mu.Unlock()
		e.cg.usage.Current, e.cg.usage.Limit = used, policy.LimitOf(limit+bytes)
	}
	set(0)
	e.Borrow = func(_ context.Context, bytes uint64) error {
		if bytes <= e.lent {
			return errors.New("asked for no more than before")
		}
		set(bytes)
		e.cg.mu.Lock()
		e.lent = bytes
		e.cg.mu.Unlock()
		return nil
	}
	return e
}

func (e *testEnv) lentNow() uint64 {
	e.cg.mu.Lock()
	defer e.cg.mu.Unlock()
	return e.lent
}

func TestElastic(t *testing.T) {
	t.Parallel()
	const m = 1 << 20
	for name, c := range map[string]struct {
		limit, used uint64
		step        policy.Size
		want        uint64
	}{
		"once":              {1024 * m, 1024 * m, policy.Size{}, 256 * m},
		"small containers":  {64 * m, 64 * m, policy.Size{}, 64 * m},
		"again, to half":    {1024 * m, 1400 * m, policy.Size{}, 512 * m},
		"as far as needed":  {4096 * m, 4096*m + 1100*m, policy.Size{}, 2048 * m},
		"the policy's more": {256 * m, 400 * m, policy.Size{Percent: 100}, 192 * m},
	} {
		t.Run(name, func(t *testing.T) {
			e := lendingEnv(t, c.limit, c.used)
			e.Step.Raise = c.step
			lent, err := elastic(t.Context(), e.Env, func(context.Context) error {
				testkit.Eventually(t, "the room", func() bool { return e.lentNow() >= c.want })
				time.Sleep(5 * raisePoll)
				return nil
			})
			if err != nil || lent != c.want {
				t.Errorf("lent %d MiB, want %d; %v", lent>>20, c.want>>20, err)
			}
		})
	}
}

// A budget that gives no more ends the raising and not the dump.
func TestElasticBudget(t *testing.T) {
	t.Parallel()
	e := lendingEnv(t, 1<<30, 1400<<20)
	give := e.Borrow
	refused := make(chan struct{}, 1)
	e.Borrow = func(ctx context.Context, bytes uint64) error {
		if bytes > 300<<20 {
			refused <- struct{}{}
			return errors.New("over budget")
		}
		return give(ctx, bytes)
	}
	lent, err := elastic(t.Context(), e.Env, func(context.Context) error { <-refused; return nil })
	if err != nil || lent != 256<<20 {
		t.Errorf("lent %d MiB, %v", lent>>20, err)
	}
	e.Borrow = func(context.Context, uint64) error { return errors.New("over budget") }
	if _, err := elastic(t.Context(), e.Env, func(context.Context) error { t.Error("it ran"); return nil }); err == nil {
		t.Error("without any room it succeeded")
	}
}
