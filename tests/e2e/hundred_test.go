package e2e

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/cri"
)

// TestHundredContainers measures what Arbiter costs a node's runtime: how soon
// a source knows 100 containers that run already, how soon a daemon has
// guarded them, and what a create and a start take with and without it, side
// by side in one run. In CI it runs with a few containers, for its checks.
func TestHundredContainers(t *testing.T) {
	total := 10
	if os.Getenv("ARBITER_E2E_BENCH") != "" {
		total = 100
	}
	n := newNode(t, nodeOptions{})
	p := n.runPod(podOptions{name: "many"})
	for i := range total {
		p.run(containerOptions{name: fmt.Sprintf("c%d", i), limit: 64 * mib, args: calm})
	}
	for name, s := range map[string]source{"containerd": n.containerdSource(), "nri": n.nriSource()} {
		took := startUp(t, s, total)
		t.Logf("%s: %d containers told after %v", name, total, took)
	}

	daemonBinaries(t) // building is not measured
	without := startTimes(p, "without", total/2)
	start := time.Now()
	d := n.startArbiter(t, untilOperator)
	eventually(t, long, "all are guarded", func() error {
		var guards []api.Guard
		if err := d.try(&guards, "guards"); err != nil {
			return err
		}
		armed := 0
		for _, g := range guards {
			if g.State != "unarmed" && g.State != "failed" {
				armed++
			}
		}
		if armed < total {
			return fmt.Errorf("%d of %d guarded", armed, total)
		}
		return nil
	})
	t.Logf("arbiterd: started, and %d containers guarded after %v", total, time.Since(start))
	with := startTimes(p, "with", total/2)
	t.Logf("create and start of a container: without %s, with %s", spread(without), spread(with))
}

// startUp is how long a source takes to tell of all.
func startUp(t *testing.T, s source, total int) time.Duration {
	t.Helper()
	start := time.Now()
	var once sync.Once
	synced := make(chan time.Duration)
	seen := 0
	record(t, s, func(ev cri.Event) {
		switch ev.Kind {
		case cri.Added:
			seen++
		case cri.Synced:
			once.Do(func() { synced <- time.Since(start) })
		}
	})
	took := <-synced
	if seen < total {
		t.Errorf("%s told of %d containers, want %d", s.Name(), seen, total)
	}
	return took
}

func startTimes(p *pod, name string, count int) []time.Duration {
	var times []time.Duration
	for i := range count {
		start := time.Now()
		c := p.run(containerOptions{name: fmt.Sprintf("%s-%d", name, i), limit: 64 * mib, args: calm})
		times = append(times, time.Since(start))
		must(c.stop(0))
		must(c.remove())
	}
	return times
}

// spread is the median with the lowest and the highest.
func spread(times []time.Duration) string {
	slices.Sort(times)
	r := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("%v (%v to %v, %d)", r(times[len(times)/2]), r(times[0]), r(times[len(times)-1]), len(times))
}
