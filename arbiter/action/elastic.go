package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// How room is lent to a runtime that dumps itself. Measured on JVMs of 256 MiB:
// 16 MiB of room let one dump in four succeed, 64 MiB two, 128 MiB all. Most
// need 2 to 10 % over the limit, up to 37 % in the middle of a full collection.
// Small raises are slow: near its limit a JVM spends seconds in reclaim.
const (
	firstRaise  = 64 << 20
	raiseMargin = 16 << 20 // raise again when less than this is left
	raisePoll   = 10 * time.Millisecond
)

// elastic lends room while f runs: at first max(64 MiB, 25 % of the limit),
// then 25 % more whenever little is left, up to half of the limit. It acts
// before the limit is reached: a case that reaches a raised limit is frozen
// and the step cancelled.
func elastic(ctx context.Context, env Env, f func(context.Context) error) (lent uint64, err error) {
	limit, limited := env.Facts.Limit.Bytes()
	if !limited || env.Borrow == nil {
		return 0, f(ctx)
	}
	e := &lender{env: env, step: limit / 4, lent: env.Cgroup.Status().Borrowed}
	e.most = max(limit/2, firstRaise, env.Step.Raise.Of(limit), e.lent)
	if err := e.raise(ctx, max(firstRaise, e.step)); err != nil {
		return e.lent, fmt.Errorf("borrow room: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.watch(ctx)
	}()
	err = f(ctx)
	cancel()
	<-done
	return e.lent, err
}

type lender struct {
	env        Env
	step, most uint64
	lent       uint64
}

// raise makes the lent room at least bytes, within the most.
func (l *lender) raise(ctx context.Context, bytes uint64) error {
	bytes = min(bytes, l.most)
	if bytes <= l.lent {
		return nil
	}
	if err := l.env.Borrow(ctx, bytes); err != nil {
		return err
	}
	l.lent = bytes
	return nil
}

// watch raises until ctx is done or nothing more may be lent. There is no
// event to wait for: the room must grow before the kernel finds it used up.
func (l *lender) watch(ctx context.Context) {
	tick := time.NewTicker(raisePoll)
	defer tick.Stop()
	for l.lent < l.most {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		u, err := l.env.Cgroup.Usage()
		if err != nil {
			continue // gone: the step notices by itself
		}
		limit, ok := u.Limit.Bytes()
		if !ok || u.Current+raiseMargin <= limit {
			continue
		}
		if err := l.raise(ctx, l.lent+l.step); err != nil {
			if !errors.Is(err, context.Canceled) {
				l.env.Log.Info("no more room to borrow", "lent", policy.FormatBytes(l.lent), "error", err)
			}
			return
		}
	}
}
