package action

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// startRole starts this binary in a role; it is killed at the test's end.
func startRole(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestChooser(t *testing.T) {
	t.Parallel()
	p := func(pid int, start uint64) *proc.Process { return &proc.Process{Pid: pid, Start: start} }
	all := []target{
		{Process: p(30, 300), comm: "worker", rss: 10},
		{Process: p(10, 200), comm: "java", rss: 90},
		{Process: p(20, 100), comm: "worker2", rss: 50},
	}
	withInit := append([]target{{Process: p(40, 999), comm: "tini", init: true}}, all...)
	for _, tc := range []struct {
		which string
		from  []target
		want  []int
	}{
		{"pid1", all, []int{20}},
		{"pid1", withInit, []int{40}},
		{"largest", all, []int{10}},
		{"all", all, []int{30, 10, 20}},
		{"name=work*", all, []int{30, 20}},
		{"name=none", all, nil},
	} {
		choose, err := chooser(tc.which)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, x := range choose(tc.from) {
			got = append(got, x.Pid)
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.which, got, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: got %v, want %v", tc.which, got, tc.want)
			}
		}
	}
	for _, which := range []string{"name=[", "biggest"} {
		if _, err := chooser(which); err == nil {
			t.Errorf("%q: want an error", which)
		}
	}
}

func TestKernelSignal(t *testing.T) {
	e := newTestEnv(t)
	one, two := startRole(t, "role-sleep"), startRole(t, "role-sleep")
	e.cg.pids = []int{one.Process.Pid, two.Process.Pid, 1 << 30}
	e.cg.status.State = cgroup.HeldNow
	res, err := newSignal(policy.SignalOptions{Signal: "SIGKILL", Process: "pid1"}).Run(t.Context(), e.Env)
	if err != nil || !strings.Contains(res.Summary, "delivered at the thaw") {
		t.Errorf("got %+v, %v", res, err)
	}
	_ = one.Wait()
	if st, err := e.Proc.Stat(two.Process.Pid); err != nil || st.State == 'Z' {
		t.Errorf("pid1 also hit the second process: %+v, %v", st, err)
	}
	res, err = newSignal(policy.SignalOptions{Signal: "SIGKILL", Process: "all"}).Run(t.Context(), e.Env)
	if err != nil || strings.Count(res.Summary, "(") != 1 {
		t.Errorf("all of the one left: got %+v, %v", res, err)
	}
	_ = two.Wait()
	if _, err := newSignal(policy.SignalOptions{Signal: "SIGUSR1", Process: "all"}).Run(t.Context(), e.Env); !errors.Is(err, proc.ErrGone) {
		t.Errorf("nobody there: got %v, want ErrGone", err)
	}
}

func TestSignalBadOptions(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	e.cg.pids = []int{os.Getpid()}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		o   policy.SignalOptions
		ctx context.Context
	}{
		"no signal":  {policy.SignalOptions{Signal: "SIGNOPE", Process: "all"}, t.Context()},
		"no process": {policy.SignalOptions{Signal: "SIGURG", Process: "name=nobody-here"}, t.Context()},
		"no choice":  {policy.SignalOptions{Signal: "SIGURG", Process: "some"}, t.Context()},
		"late":       {policy.SignalOptions{Signal: "SIGURG", Process: "all"}, cancelled},
	} {
		if res, err := newSignal(tc.o).Run(tc.ctx, e.Env); err == nil {
			t.Errorf("%s: got %+v, want an error", name, res)
		}
	}
	if unix.SignalNum("SIGUSR1") != unix.SIGUSR1 {
		t.Error("signal names are not what policies write")
	}
}
