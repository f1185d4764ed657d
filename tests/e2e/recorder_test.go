package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/cri"
)

// A source is what the engine runs.
type source interface {
	Name() string
	Run(ctx context.Context, emit func(cri.Event), health func(error)) error
}

// A recorder runs a source in the engine's place and keeps what it says.
type recorder struct {
	t  testing.TB
	mu sync.Mutex

	now     map[string]cri.Container // by cgroup: told and not taken back
	synced  int
	up      bool
	ups     int
	downs   int
	history []string
	on      func(cri.Event) // called for each event; it owns Done then
}

// record starts a source; it is stopped, and must end, with the test.
func record(t testing.TB, s source, on func(cri.Event)) *recorder {
	t.Helper()
	r := &recorder{t: t, now: map[string]cri.Container{}, on: on}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, r.emit, r.health) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("source %s ended with %v", s.Name(), err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("source %s does not end with its context", s.Name())
		}
		if t.Failed() {
			t.Logf("source %s said: %v", s.Name(), r.history)
		}
	})
	return r
}

func (r *recorder) emit(ev cri.Event) {
	r.mu.Lock()
	kind := map[cri.EventKind]string{cri.Added: "added", cri.Updated: "updated", cri.Removed: "removed", cri.Synced: "synced"}[ev.Kind]
	r.history = append(r.history, kind+" "+ev.Container.Name)
	switch ev.Kind {
	case cri.Added, cri.Updated:
		r.now[ev.Container.Cgroup] = ev.Container
	case cri.Removed:
		delete(r.now, ev.Container.Cgroup)
	case cri.Synced:
		r.synced++
	}
	r.mu.Unlock()
	if r.on != nil {
		r.on(ev)
	} else if ev.Done != nil {
		ev.Done()
	}
}

func (r *recorder) health(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = err == nil
	if r.up {
		r.ups++
	} else {
		r.downs++
	}
}

// wait waits until what was recorded satisfies f.
func (r *recorder) wait(what string, f func() bool) {
	r.t.Helper()
	eventually(r.t, 30*time.Second, what, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if f() {
			return nil
		}
		return fmt.Errorf("%d containers, %d listings, up %v after %d ends: %v", len(r.now), r.synced, r.up, r.downs, r.history)
	})
}

func (r *recorder) waitFor(c *container) cri.Container {
	r.t.Helper()
	var found cri.Container
	r.wait("container "+c.name+" is told of", func() (ok bool) {
		found, ok = r.now[c.cgroup()]
		return ok
	})
	return found
}

func (r *recorder) waitGone(c *container) {
	r.t.Helper()
	r.wait("container "+c.name+" is taken back", func() bool {
		_, ok := r.now[c.cgroup()]
		return !ok
	})
}
