package action

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

func TestLog(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	e.Log = e.Log.With("case", "twice", "step", "a-step")
	res, err := newLog(policy.LogOptions{Message: "page the owner", Level: "warn"}).Run(t.Context(), e.Env)
	if err != nil || res.Summary != "page the owner" {
		t.Fatalf("got %+v, %v", res, err)
	}
	var got map[string]any
	if err := json.Unmarshal(e.log.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, e.log)
	}
	for key, want := range map[string]any{
		"@level": "warn", "@message": "rule says", "message": "page the owner", "case": e.Case, "step": "a-step",
		"container": "app", "pod": "checkout-1", "namespace": "shop", "cgroup": "/kubepods/pod1/c1", "rule": "a-rule",
		"trigger": "limit", "usage_bytes": float64(220 << 20), "limit_bytes": float64(256 << 20),
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options policy.WaitOptions
		within  time.Duration // of the step's own deadline
		falls   time.Duration // when usage falls to 100 MiB; 0: never
		want    string        // in the summary
		fails   string
		takes   time.Duration
	}{
		"for":            {policy.WaitOptions{For: 3 * time.Second}, time.Minute, 0, "waited 3s", "", 3 * time.Second},
		"for, cancelled": {policy.WaitOptions{For: time.Hour}, time.Second, 0, "", "deadline", time.Second},
		"falls":          {policy.WaitOptions{For: time.Minute, UsageUnder: policy.Size{Bytes: 128 << 20}}, time.Hour, 2 * time.Second, "usage 100.0 MiB after 2s", "", 2 * time.Second},
		"falls, share":   {policy.WaitOptions{For: time.Minute, UsageUnder: policy.Size{Percent: 50}}, time.Hour, 2 * time.Second, "usage 100.0 MiB", "", 2 * time.Second},
		"never":          {policy.WaitOptions{For: 5 * time.Second, UsageUnder: policy.Size{Percent: 50}}, time.Hour, 0, "usage 200.0 MiB", "not under 128.0 MiB", 5 * time.Second},
		"at once":        {policy.WaitOptions{For: 5 * time.Second, UsageUnder: policy.Size{Percent: 90}}, time.Hour, 0, "usage 200.0 MiB after 0s", "", 0},
		"cancelled":      {policy.WaitOptions{For: time.Hour, UsageUnder: policy.Size{Percent: 50}}, time.Second, 0, "usage 200.0 MiB", "deadline", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newTestEnv(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.within)
				defer cancel()
				if tc.falls > 0 {
					time.AfterFunc(tc.falls-time.Nanosecond, func() { e.cg.setUnreclaimable(100 << 20) })
				}
				began := time.Now()
				res, err := newWait(tc.options).Run(ctx, e.Env)
				if took := time.Since(began); took != tc.takes {
					t.Errorf("took %v, want %v", took, tc.takes)
				}
				if !strings.Contains(res.Summary, tc.want) || (err != nil) != (tc.fails != "") {
					t.Errorf("got %+v, %v", res, err)
				}
				if err != nil && !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v, want %q", err, tc.fails)
				}
			})
		})
	}
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		e := newTestEnv(t)
		e.cg.err = cgroup.ErrGone
		if _, err := newWait(policy.WaitOptions{For: time.Hour, UsageUnder: policy.Size{Bytes: 1}}).Run(t.Context(), e.Env); !errors.Is(err, cgroup.ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	})
}

func TestRaise(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	res, err := newRaise(policy.RaiseOptions{By: policy.Size{Percent: 25}}).Run(t.Context(), e.Env)
	if err != nil || e.lent != 64<<20 || !strings.Contains(res.Summary, "64.0 MiB") {
		t.Errorf("lent %d, %+v, %v", e.lent, res, err)
	}
	over := errors.New("over budget")
	e.Borrow = func(context.Context, uint64) error { return over }
	if _, err := newRaise(policy.RaiseOptions{By: policy.Size{Bytes: 1 << 20}}).Run(t.Context(), e.Env); !errors.Is(err, over) {
		t.Errorf("got %v, want over budget", err)
	}
	e.Facts.Limit = policy.NoLimit
	if _, err := newRaise(policy.RaiseOptions{By: policy.Size{Percent: 25}}).Run(t.Context(), e.Env); err == nil || errors.Is(err, over) {
		t.Errorf("a share of no limit: got %v", err)
	}
}

type reclaimable struct {
	*fakeCgroup
	asked *uint64
	gives uint64
	err   error
}

func (r reclaimable) Reclaim(_ context.Context, bytes uint64) (uint64, error) {
	*r.asked = bytes
	return r.gives, r.err
}

func TestReclaim(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		amount policy.Size
		gives  uint64
		err    error
		asked  uint64
		ok     bool
	}{
		"all":             {policy.Size{}, 12 << 20, nil, 0, true},
		"all, none there": {policy.Size{}, 0, nil, 0, true},
		"amount":          {policy.Size{Bytes: 10 << 20}, 4 << 20, nil, 10 << 20, true},
		"share, nothing":  {policy.Size{Percent: 50}, 0, nil, 128 << 20, false},
		"late":            {policy.Size{}, 1 << 20, context.DeadlineExceeded, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newTestEnv(t)
			var asked uint64
			e.Cgroup = reclaimable{e.cg, &asked, tc.gives, tc.err}
			res, err := newReclaim(policy.ReclaimOptions{Amount: tc.amount}).Run(t.Context(), e.Env)
			if (err == nil) != tc.ok || asked != tc.asked || !strings.Contains(res.Summary, "usage is 220.0 MiB") {
				t.Errorf("asked for %d, got %+v, %v", asked, res, err)
			}
		})
	}
	e := newTestEnv(t)
	if _, err := newReclaim(policy.ReclaimOptions{}).Run(t.Context(), e.Env); !errors.Is(err, cgroup.ErrNotSupported) {
		t.Errorf("a cgroup that cannot: got %v, want ErrNotSupported", err)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":            "plain",
		"a\nb\x1b[31m\x00": "a?b?[31m?",
		"\xff\xfe":         "??",
		"ü\u202e":          "ü?",
		"0123456789abcdef": "0123456789…",
	} {
		if got := printable(in, 10); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
