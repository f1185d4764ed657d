package cgroup_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// TestKernelV1SyscallHeavy counts how often an allocator whose charges fail
// inside a system call is held before it sees an error. Populate moves past
// the thresholds in plain sight; pipes are kernel memory, which fires none, so
// they are only counted.
func TestKernelV1SyscallHeavy(t *testing.T) {
	needV1(t)
	const runs = 15
	for _, test := range []struct {
		name string
		load testkit.Load
		most int // errors that are accepted
	}{
		{"populate in 256 KiB blocks", testkit.Load{Kind: testkit.Populate, Block: mib / 4}, runs * 2 / 3},
		{"populate in 4 MiB blocks", testkit.Load{Kind: testkit.Populate, Block: 4 * mib}, runs},
		{"pipes", testkit.Load{Kind: testkit.Pipe}, runs},
	} {
		t.Run(test.name, func(t *testing.T) {
			errors, held := 0, 0
			for range runs {
				group := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
				g := newGuard(t)
				c := g.arm(group)
				settled(t)
				child := group.Start(test.load)
				testkit.Eventually(t, "it is held or fails", func() bool {
					select {
					case e := <-g.events:
						if e.Kind == cgroup.EventLimit && c.Freeze(t.Context()) == nil {
							held++
							return true
						}
					default:
					}
					return child.Errors() > 0
				})
				if child.Errors() > 0 {
					errors++
				}
				must(t, c.Kill(t.Context()))
				must(t, c.Close())
			}
			t.Logf("%d runs: %d held, %d saw an error", runs, held, errors)
			if errors > test.most {
				t.Errorf("%d of %d saw an error, at most %d are accepted", errors, runs, test.most)
			}
		})
	}
}

// settled gives the thresholds, which are registered in the background, time.
func settled(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(200 * time.Millisecond):
	case <-t.Context().Done():
	}
}

// TestKernelV1NeverHeld has loads near their limit for good that are no case.
func TestKernelV1NeverHeld(t *testing.T) {
	needV1(t)
	for _, test := range []struct {
		name string
		load testkit.Load
	}{
		{"page cache", testkit.Load{Kind: testkit.Cache, Ceiling: 192 * mib}},
		{"steady at 95 %", testkit.Load{Kind: testkit.Steady, Ceiling: 118 * mib, Block: 2 * mib, Pause: time.Millisecond}},
		{"breathing up to 97 %", testkit.Load{Kind: testkit.Steady, Ceiling: 121 * mib, Block: 12 * mib, Pause: 5 * time.Millisecond}},
		{"breathing without pause", testkit.Load{Kind: testkit.Steady, Ceiling: 118 * mib, Block: 8 * mib}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.load.File = filepath.Join(t.TempDir(), "cache")
			group := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
			g := newGuard(t)
			c := g.arm(group)
			settled(t)
			child := group.Start(test.load)
			testkit.Eventually(t, "it is where it stays", child.Done)
			for range 20 {
				settled(t)
				g.no(cgroup.EventLimit)
			}
			t.Logf("%d rounds, peak %d KiB below the limit", child.Pages(), (128*mib-group.Number("memory.max_usage_in_bytes"))>>10)
			if child.Exited() || group.Kills() != 0 {
				t.Error("it died")
			}
			must(t, c.Disarm(t.Context()))
		})
	}
}
