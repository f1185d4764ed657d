package action

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A held group is a real container at its limit, as an action finds it.
type heldGroup struct {
	*testkit.Group
	*testEnv
	cg cgroup.Cgroup
}

// atLimit makes a group with a limit of 64 MiB, lets a child run into it, and
// freezes it unless it is to be left asleep in the kernel's own wait.
func atLimit(t *testing.T, freeze bool) (heldGroup, *testkit.Child) {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	if testkit.Has(t, testkit.V2Memory) {
		testkit.Need(t, testkit.SysResource)
	}
	group := testkit.Tree(t, testkit.Options{Limit: 64 << 20})
	limit := make(chan struct{}, 1)
	cg := openCgroup(t, group.Path, func(e cgroup.Event) {
		if e.Kind == cgroup.EventLimit {
			select {
			case limit <- struct{}{}:
			default:
			}
		}
	})
	if _, err := cg.Arm(t.Context(), cgroup.ArmOptions{Hold: true}); err != nil {
		t.Fatal(err)
	}
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	select {
	case <-limit:
	case <-time.After(testkit.Patience):
		t.Fatal("the limit was never reached")
	}
	if freeze {
		if err := cg.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	e := newTestEnv(t)
	e.Cgroup = cg
	e.Facts.Limit = policy.LimitOf(64 << 20)
	e.Facts.Container = cri.Container{Cgroup: group.Path}
	return heldGroup{group, e, cg}, child
}

// openCgroup is the real thing at path; its events go to handle.
func openCgroup(t *testing.T, path string, handle func(cgroup.Event)) cgroup.Cgroup {
	t.Helper()
	fs, err := cgroup.Open("/sys/fs/cgroup", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	fs.Handle(handle)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fs.Run(ctx) }()
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("close cgroups: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("watch cgroups: %v", err)
		}
	})
	cg, err := fs.Get(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := cg.(Reclaimer); !ok {
		t.Errorf("%T cannot reclaim", cg)
	}
	return cg
}

// A snapshot of a container that stands still at its limit reads everything,
// wakes nothing and costs the container nothing.
func TestKernelSnapshotOfAFrozenContainer(t *testing.T) {
	h, child := atLimit(t, true)
	before := child.Pages()
	h.takeSnapshot(t, child)
	if n := child.Pages() - before; n != 0 {
		t.Errorf("%d pages were touched meanwhile", n)
	}
}

// Nor does it hang on one that sleeps in the kernel's own wait for memory. On
// v2 nothing does.
func TestKernelSnapshotOfASleeper(t *testing.T) {
	testkit.Need(t, testkit.V1Memory)
	h, child := atLimit(t, false)
	h.takeSnapshot(t, child)
}

func (h heldGroup) takeSnapshot(t *testing.T, child *testkit.Child) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	began := time.Now()
	res, err := newSnapshot(policy.SnapshotOptions{}).Run(ctx, h.Env)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %s", time.Since(began), res.Summary)
	h.check(t, child)
	if n := h.Kills(); n != 0 {
		t.Errorf("the kernel killed %d", n)
	}
}

func (h heldGroup) check(t *testing.T, child *testkit.Child) {
	t.Helper()
	text := h.files.read(t, "snapshot.txt")
	for _, want := range []string{"most of it anonymous memory", h.Path + "   <- this limit binds", fmt.Sprintf("MAPPINGS of %d", child.Pid)} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	var r report
	if err := json.Unmarshal([]byte(h.files.read(t, "snapshot.json")), &r); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Missing {
		if strings.HasPrefix(m, "mappings of") && strings.Contains(m, "deadline exceeded") {
			continue // a slow machine: given up as it should be
		}
		if !strings.HasPrefix(m, "kernel log:") && !strings.HasPrefix(m, "node pressure:") {
			t.Errorf("not read: %s", m)
		}
	}
	if len(r.Processes) != 1 || r.Processes[0].Pid != child.Pid || len(r.Processes[0].Args) == 0 || r.Processes[0].Anon < 48<<20 {
		t.Errorf("processes: %+v", r.Processes)
	}
	// On v2 the kernel reports that it found nobody to kill, before the freeze.
	if h.Version() == 2 && !strings.Contains(text, "Memory cgroup stats for "+h.Path) {
		t.Errorf("the kernel's out-of-memory report is missing:\n%s", text)
	}
	if anon, ok := stat(r.Levels[0].Stat, []string{"anon", "rss"}); !ok || anon < 48<<20 {
		t.Errorf("stat: %v", r.Levels[0].Stat)
	}
}

// exec's program runs beside the container, not in its cgroup.
func TestKernelExecBesideAHeldContainer(t *testing.T) {
	h, child := atLimit(t, true)
	before := child.Pages()
	res, err := selfExec(t, "role-cgroup").Run(t.Context(), h.Env)
	if err != nil {
		t.Fatal(err)
	}
	if where := h.files.read(t, "a-step.txt"); strings.Contains(where, h.Path) || where == "" {
		t.Errorf("%s: the program ran in %q", res.Summary, where)
	}
	if child.Pages() != before || h.Kills() != 0 {
		t.Errorf("%d pages touched, %d kills", child.Pages()-before, h.Kills())
	}
}

// A signal to a frozen container is delivered at the thaw, and said so.
func TestKernelSignalToAFrozenContainer(t *testing.T) {
	h, child := atLimit(t, true)
	res, err := newSignal(policy.SignalOptions{Signal: "SIGTERM", Process: "largest"}).Run(t.Context(), h.Env)
	if err != nil || !strings.Contains(res.Summary, fmt.Sprintf("SIGTERM sent to %d", child.Pid)) || !strings.Contains(res.Summary, "delivered at the thaw") {
		t.Errorf("got %+v, %v", res, err)
	}
	if child.Exited() {
		t.Error("it died while it was frozen")
	}
	if err := h.cg.Borrow(t.Context(), 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := h.cg.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	child.Await()
}
