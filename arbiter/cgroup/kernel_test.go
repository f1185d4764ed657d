package cgroup_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

const mib = 1 << 20

// guard is an FS that runs, and the events that it emits.
type guard struct {
	*cgroup.FS
	t      *testing.T
	events chan cgroup.Event
}

// newGuard opens the host's cgroups and runs the watch until the test ends.
func newGuard(t *testing.T) *guard {
	t.Helper()
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: testWriter{t}})
	fs, err := cgroup.Open("/sys/fs/cgroup", log)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{FS: fs, t: t, events: make(chan cgroup.Event, 4096)}
	fs.Handle(func(e cgroup.Event) {
		select {
		case g.events <- e:
		default:
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fs.Run(ctx) }()
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return g
}

// testWriter sends the log to the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// arm opens and arms a group for holding.
func (g *guard) arm(group *testkit.Group) cgroup.Cgroup {
	g.t.Helper()
	return g.armWith(group, cgroup.ArmOptions{Hold: true})
}

func (g *guard) armWith(group *testkit.Group, o cgroup.ArmOptions) cgroup.Cgroup {
	g.t.Helper()
	c, err := g.Get(group.Path)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := c.Arm(g.t.Context(), o); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// await waits for an event of one kind about a cgroup, and skips others.
func (g *guard) await(kind cgroup.EventKind, c cgroup.Cgroup) cgroup.Event {
	g.t.Helper()
	late := time.After(testkit.Patience)
	for {
		select {
		case e := <-g.events:
			if e.Kind == kind && e.Cgroup == c {
				return e
			}
		case <-late:
			g.t.Fatalf("no event of kind %d about %s", kind, c.Path())
		}
	}
}

// forget throws away the events that are queued.
func (g *guard) forget() {
	for {
		select {
		case <-g.events:
		default:
			return
		}
	}
}

// no fails if an event of one kind is queued.
func (g *guard) no(kind cgroup.EventKind) {
	g.t.Helper()
	for {
		select {
		case e := <-g.events:
			if e.Kind == kind {
				g.t.Fatalf("event of kind %d: %s", kind, e.Why)
			}
		default:
			return
		}
	}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isUsage(err error) bool { return errors.Is(err, cgroup.ErrUsage) }
