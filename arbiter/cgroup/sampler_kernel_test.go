package cgroup_test

import (
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// Samples follow a container's growth and its end, on both versions.
func TestKernelSamples(t *testing.T) {
	testkit.Need(t, testkit.Memory)
	const limit = 64 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	c, err := g.Get(group.Path)
	must(t, err)
	st, err := c.Arm(t.Context(), cgroup.ArmOptions{Sample: true})
	must(t, err)
	if st.State != cgroup.Watched {
		t.Errorf("state %s", st.State)
	}
	child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 40 * mib, Pause: 10 * time.Microsecond})
	grew := g.sample(c, func(e cgroup.Event) bool { return e.BytesPerSecond > mib && e.TimeToLimit >= 0 })
	if n, ok := grew.Usage.Limit.Bytes(); !ok || n != limit {
		t.Errorf("sample %+v", grew)
	}
	testkit.Eventually(t, "it stands still", child.Done)
	still := g.sample(c, func(e cgroup.Event) bool { return e.TimeToLimit < 0 && e.Usage.Unreclaimable > 39*mib })
	t.Logf("grew at %.0f MiB/s, %v to the limit; then %d MiB", grew.BytesPerSecond/mib, grew.TimeToLimit, still.Usage.Unreclaimable/mib)
	must(t, c.Disarm(t.Context()))
	g.no(cgroup.EventLimit)
}

// sample waits for a sample that ok accepts.
func (g *guard) sample(c cgroup.Cgroup, ok func(cgroup.Event) bool) cgroup.Event {
	g.t.Helper()
	late := time.After(testkit.Patience)
	for {
		select {
		case e := <-g.events:
			if e.Kind == cgroup.EventSample && e.Cgroup == c && ok(e) {
				return e
			}
		case <-late:
			g.t.Fatal("no such sample")
		}
	}
}
