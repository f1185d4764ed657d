package cgroup_test

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// An exempt process may lower its own score as it likes. It must have neither
// that score nor that right once the guard is gone.
func TestKernelV2KeepsNoExemption(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	for _, c := range []struct {
		name             string
		itself, rescored int
		want             int
	}{
		{"raised", 1, 1, 1},
		{"lowered", -999, -999, 0},
		{"lowered at last", 1, -999, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
			child := group.Start(testkit.Load{Kind: testkit.Sleep})
			g := newGuard(t)
			cg := g.armWith(group, cgroup.ArmOptions{Hold: true, AlwaysGuard: true})
			must(t, scoreItself(child.Pid, c.itself))
			testkit.Eventually(t, "it is exempt again", func() bool { return score(t, child.Pid) == -1000 })
			must(t, scoreItself(child.Pid, c.rescored))
			must(t, cg.Disarm(t.Context()))
			if got := score(t, child.Pid); got != c.want {
				t.Errorf("oom_score_adj %d after, want %d", got, c.want)
			}
			if err := scoreItself(child.Pid, -1); !errors.Is(err, unix.EACCES) {
				t.Errorf("it may still lower its score: %v", err)
			}
		})
	}
}

// scoreItself writes a score with no more right than the process itself has.
func scoreItself(pid, adj int) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err = unix.Capget(&hdr, &data[0]); err != nil {
			return
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err = unix.Capset(&hdr, &data[0]); err == nil {
			err = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(adj)), 0)
		}
	}()
	<-done
	return err
}

// A container that uses borrowed room and is given back dies itself; its pod's
// other processes do not die for it.
func TestKernelV2GivenBackAlone(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	pod := testkit.Tree(t, testkit.Options{Limit: limit})
	ctr := pod.Child("ctr", testkit.Options{Limit: limit})
	pause := pod.Child("pause", testkit.Options{}).Start(testkit.Load{Kind: testkit.Sleep})
	child := ctr.Start(testkit.Load{Kind: testkit.Anon})
	g := newGuard(t)
	c := g.arm(ctr)
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Borrow(t.Context(), 64*mib))
	g.forget()
	must(t, c.Thaw(t.Context()))
	g.await(cgroup.EventLimit, c)
	must(t, c.Disarm(t.Context()))
	child.Await()
	if pause.Exited() {
		t.Error("the other one was killed")
	}
	checkUntouched(t, pod, limit)
	checkUntouched(t, ctr, limit)
}

// A held container lives on while another one of its pod grows to the pod's
// limit, is held there as well, and is killed.
func TestKernelV2HeldWhileAnotherGrows(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	pod := testkit.Tree(t, testkit.Options{Limit: 160 * mib})
	first, second := pod.Child("first", testkit.Options{Limit: 96 * mib}), pod.Child("second", testkit.Options{Limit: 96 * mib})
	g := newGuard(t)
	a, b := g.arm(first), g.arm(second)
	held := first.Start(testkit.Load{Kind: testkit.Anon})
	g.await(cgroup.EventLimit, a)
	must(t, a.Freeze(t.Context()))
	if got := score(t, held.Pid); got != 0 {
		t.Errorf("oom_score_adj %d while held alone", got)
	}
	grower := second.Start(testkit.Load{Kind: testkit.Anon})
	if e := g.await(cgroup.EventLimit, b); e.Level != pod.Path {
		t.Errorf("the limit of %s was hit, want %s", e.Level, pod.Path)
	}
	must(t, b.Freeze(t.Context()))
	if n := pod.Kills(); n != 0 || held.Exited() || grower.Exited() {
		t.Errorf("kills %d, held gone %v, grower gone %v", n, held.Exited(), grower.Exited())
	}
	must(t, b.Kill(t.Context()))
	grower.Await()
	if held.Exited() || !first.Frozen() {
		t.Errorf("held gone %v, frozen %v", held.Exited(), first.Frozen())
	}
	must(t, b.Disarm(t.Context()))
	must(t, a.Thaw(t.Context()))
	g.forget()
	g.await(cgroup.EventLimit, a)
	must(t, a.Disarm(t.Context()))
	held.Await() // the kernel decides as ever
}

// One container's end takes no room from another one of its pod.
func TestKernelV2LentRoomAddsUp(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	pod := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	g := newGuard(t)
	var groups []*testkit.Group
	var cs []cgroup.Cgroup
	for _, name := range []string{"one", "two"} {
		ctr := pod.Child(name, testkit.Options{Limit: 64 * mib})
		ctr.Start(testkit.Load{Kind: testkit.Sleep})
		groups, cs = append(groups, ctr), append(cs, g.arm(ctr))
	}
	check := func(when string, inPod uint64, in ...uint64) {
		t.Helper()
		for i, want := range in {
			if got := groups[i].Limit(); got != want*mib {
				t.Errorf("%s: limit %d MiB, want %d", when, got/mib, want)
			}
		}
		if got := pod.Limit(); got != inPod*mib {
			t.Errorf("%s: the pod's limit %d MiB, want %d", when, got/mib, inPod)
		}
	}
	must(t, cs[0].Grant(t.Context(), 16*mib))
	must(t, cs[0].Borrow(t.Context(), 8*mib))
	must(t, cs[1].Borrow(t.Context(), 32*mib))
	check("lent", 128+24+32, 64+24, 64+32)
	must(t, cs[0].Grant(t.Context(), 20*mib))
	check("granted", 128+20+32, 64+20, 64+32)
	must(t, cs[0].Disarm(t.Context()))
	check("one is disarmed", 128+32, 64, 64+32)
	must(t, cs[1].Disarm(t.Context()))
	check("both are disarmed", 128, 64, 64)
}

// guard = "always" is back once the node has memory again.
func TestKernelV2AlwaysAgain(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	child := group.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c := g.armWith(group, cgroup.ArmOptions{Hold: true, AlwaysGuard: true})
	must(t, g.DropGuards(t.Context()))
	if got := score(t, child.Pid); got != 0 {
		t.Errorf("oom_score_adj %d after the drop", got)
	}
	if err := c.Guarded(t.Context(), func() error { return nil }); err == nil {
		t.Error("it was exempt while no guards were allowed")
	}
	g.AllowGuards()
	testkit.Eventually(t, "it is guarded again", func() bool { return score(t, child.Pid) == -1000 })
	must(t, c.Disarm(t.Context()))
}
