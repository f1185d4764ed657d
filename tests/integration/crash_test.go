package integration

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// workerPid is the daemon that answers, below its supervisor.
func (r *rig) workerPid() int {
	r.t.Helper()
	return decode[api.Status](r.t, r.must("status", "-o", "json")).Pid
}

func kill9(t testing.TB, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %d: %v", pid, err)
		}
	}
}

func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

// Whatever dies at whatever moment of a case, the container is let go, its
// limit is its own again, and the case is the kernel's.
func TestKernelKilled(t *testing.T) {
	moments := map[string]string{ // step → policy steps before and with it
		"wait":  wait,
		"raise": "[[rule.step]]\naction = \"raise\"\nby = \"25%\"\n" + wait,
	}
	for moment, steps := range moments {
		for _, victim := range []string{"worker", "supervisor", "both", "stopped worker"} {
			t.Run(moment+"/"+victim, func(t *testing.T) {
				t.Parallel()
				g := group(t, 64*mib)
				r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, steps, `do = "kill"`)})
				l := r.leak(g, "--rate", "200MiB/s")
				h := r.awaitHold(g.Path, "wait")
				r.strike(victim)
				// At its limit the kernel kills it, as it would have without us.
				l.awaitEnd()
				if g.Frozen() {
					t.Error("still frozen")
				}
				if victim == "supervisor" || victim == "both" {
					asBefore(t, g, 64*mib)
					r.run("supervise")
				}
				testkit.Eventually(t, "the case is closed", func() bool {
					out, _, code := r.ctl("show", h.ID, "-o", "json")
					return code == 0 && strings.Contains(out, `"outcome": "kernel"`)
				})
				if rec := r.cases(g.Path)[0]; rec.ID != h.ID || rec.Outcome != casebook.OutcomeKernel {
					t.Errorf("case %s closed as %s", rec.ID, rec.Outcome)
				}
				r.stop()
				asBefore(t, g, 64*mib)
			})
		}
	}
}

// strike kills or stops the daemon's processes.
func (r *rig) strike(victim string) {
	r.t.Helper()
	worker, supervisor := r.workerPid(), r.daemon.Process.Pid
	switch victim {
	case "worker":
		kill9(r.t, worker)
	case "stopped worker":
		if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
			r.t.Fatal(err)
		}
	case "supervisor":
		kill9(r.t, supervisor)
		testkit.Eventually(r.t, "the worker ends", func() bool { return gone(worker) })
	case "both":
		kill9(r.t, supervisor, worker)
		testkit.Eventually(r.t, "the worker is gone", func() bool { return gone(worker) })
		r.release("--all")
	}
}

// release runs arbiterd release and returns what it prints.
func (r *rig) release(args ...string) string {
	r.t.Helper()
	out, err := exec.Command(filepath.Join(r.bin, "arbiterd"), append([]string{"release"}, args...)...).CombinedOutput()
	if err != nil {
		r.t.Errorf("arbiterd release %v: %v: %s", args, err, out)
	}
	return string(out)
}

// A limit that somebody else wrote meanwhile stays.
func TestKernelForeignLimitSurvives(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s")
	r.awaitHold(g.Path, "wait")
	g.SetLimit(128 * mib)
	r.strike("both")
	testkit.Eventually(t, "it runs on to the new limit", func() bool {
		return l.ended() || l.report().Pages > 70*mib/4096
	})
	asBefore(t, g, 128*mib)
}

// A release and a second daemon beside a live one touch nothing.
func TestKernelOneOwner(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s")
	r.awaitHold(g.Path, "wait")
	record := g.Record()

	out := r.release("--all")
	if !strings.Contains(out, g.Path+": skipped") {
		t.Errorf("release does not name what it skips: %q", out)
	}
	other := newRig(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	other.run("supervise")
	other.awaitGuard(g.Path, "failed")
	if gd, _ := other.guard(g.Path); !strings.Contains(strings.Join(gd.Missing, " "), "another daemon") {
		t.Errorf("the second daemon says %q", gd.Missing)
	}
	other.stop()
	standsStill(t, g, l)
	if !g.Frozen() || g.Record() != record {
		t.Errorf("frozen %v, record was\n%s\nis\n%s", g.Frozen(), record, g.Record())
	}
}

// SIGTERM gives every case its otherwise, and disarms.
func TestKernelOrderlyStop(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, "do = \"kill\"\notherwise = \"resume\"\nraise = \"50%\"")})
	l := r.leak(g, "--ceiling", "80MiB", "--rate", "200MiB/s")
	h := r.awaitHold(g.Path, "wait")
	r.stop()
	testkit.Eventually(t, "it runs on with more room", func() bool { return l.report().Pages >= 80*mib/4096 })
	if l.ended() {
		t.Error("the process is gone")
	}
	asBefore(t, g, 96*mib) // usage does not fit below: what was granted stays
	r.run("supervise")
	if rec := r.cases(g.Path)[0]; rec.ID != h.ID || rec.Outcome != casebook.OutcomeResume {
		t.Errorf("case %s closed as %s: %s", rec.ID, rec.Outcome, rec.Why)
	}
}

// Thresholds of pid reuse: the supervisor survives many deaths of its worker.
func TestKernelSupervisorRestartsWorker(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`)})
	for range 2 {
		old := r.workerPid()
		kill9(t, old)
		testkit.Eventually(t, "another worker than "+strconv.Itoa(old)+" answers", func() bool {
			out, _, code := r.ctl("status", "-o", "json")
			return code == 0 && decode[api.Status](t, out).Pid != old
		})
		r.awaitGuard(g.Path, "armed")
	}
}
