package cgroup_test

import (
	"slices"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

func TestKernelV1HoldRaiseKill(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	g := newGuard(t)
	c := g.arm(group)
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	e := g.await(cgroup.EventLimit, c)
	t.Logf("%s: %s", e.Level, e.Why)
	must(t, c.Freeze(t.Context()))
	if !group.Frozen() {
		t.Error("not frozen")
	}
	before := child.Pages()
	must(t, c.Borrow(t.Context(), 16*mib))
	if got := group.Limit(); got != 80*mib {
		t.Errorf("limit %d after a raise", got)
	}
	must(t, c.Thaw(t.Context()))
	g.forget()
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	if child.Pages() == before {
		t.Error("nothing ran after the thaw")
	}
	must(t, c.Kill(t.Context()))
	child.Await()
	must(t, c.Disarm(t.Context()))
	if group.Limit() != 64*mib || group.Record() != "" || group.Key("memory.oom_control", "oom_kill_disable") != 0 {
		t.Errorf("limit %d, record %q", group.Limit(), group.Record())
	}
	if n := group.Kills(); n != 0 {
		t.Errorf("the kernel killed %d", n)
	}
}

// TestKernelV1Observe changes nothing in the kernel and tells all the same.
func TestKernelV1Observe(t *testing.T) {
	testkit.Need(t, testkit.V1Memory)
	group := testkit.Tree(t, testkit.Options{Limit: 32 * mib})
	g := newGuard(t)
	c, err := g.Get(group.Path)
	must(t, err)
	_, err = c.Arm(t.Context(), cgroup.ArmOptions{Observe: true, Sample: true})
	must(t, err)
	if group.Record() != "" || group.Key("memory.oom_control", "oom_kill_disable") != 0 {
		t.Error("something was changed")
	}
	g.await(cgroup.EventSample, c)
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	e := g.await(cgroup.EventLimit, c)
	if e.Level != group.Path {
		t.Errorf("level %s", e.Level)
	}
	child.Await()
	if group.Kills() == 0 {
		t.Error("the kernel did not kill")
	}
	must(t, c.Disarm(t.Context()))
}

func TestKernelReservedAndGlob(t *testing.T) {
	testkit.Need(t, testkit.Memory)
	tree := testkit.Tree(t, testkit.Options{})
	ctr := tree.Child("a.service", testkit.Options{})
	child := ctr.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	for pattern, want := range map[string][]string{
		tree.Path + "/*.service":    {ctr.Path},
		tree.Path + "/**":           {ctr.Path},
		tree.Path:                   {tree.Path},
		tree.Path + "/*/*":          nil,
		"/no-such-directory-here/*": nil,
	} {
		got, err := g.Glob([]string{pattern})
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
	if why, reserved := g.Reserved(ctr.Path); reserved {
		t.Errorf("%s is reserved: %s", ctr.Path, why)
	}
	for _, p := range []string{ctr.Path, tree.Path} {
		if _, reserved := g.Reserved(p, child.Pid); !reserved {
			t.Errorf("%s holds the asking process and is not reserved", p)
		}
	}
	if _, reserved := g.Reserved("/"); !reserved {
		t.Error("the root is not reserved")
	}
	tree.Child("sibling", testkit.Options{}).Place(child.Pid)
	if _, reserved := g.Reserved(ctr.Path, child.Pid); reserved {
		t.Error("a cgroup without the asking process is reserved")
	}
}
