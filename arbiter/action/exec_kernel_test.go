package action

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// childOf is the pid that a role printed, as a process to watch.
func childOf(t *testing.T, e *testEnv, partial bool) int {
	t.Helper()
	name := "a-step.txt"
	if partial {
		name += ".partial"
	}
	pid, err := strconv.Atoi(strings.TrimSpace(e.files.read(t, name)))
	if err != nil {
		t.Fatalf("no pid in %s: %v", name, e.files.names(t))
	}
	return pid
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for time.Now().Before(end) {
		st, err := proc.FS("/proc").Stat(pid)
		if errors.Is(err, proc.ErrGone) || st.State == 'Z' {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// At its deadline the program is killed with everything that it started,
// also what ignores SIGTERM and holds its pipes.
func TestKernelExecDeadlineKillsTheGroup(t *testing.T) {
	e := newTestEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // the deadline comes once the child is there
		defer cancel()
		for e.files.read(t, "a-step.txt.partial") == "" && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
		}
	}()
	res, err := selfExec(t, "role-stay-with-child").Run(ctx, e.Env)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %+v, %v", res, err)
	}
	awaitGone(t, childOf(t, e, false))
}

// What a program leaves behind ends with it.
func TestKernelExecLeavesNothingBehind(t *testing.T) {
	e := newTestEnv(t)
	res, err := selfExec(t, "role-leave-child").Run(t.Context(), e.Env)
	if err != nil {
		t.Errorf("got %+v, %v", res, err)
	}
	awaitGone(t, childOf(t, e, false))
}

// A descendant that left the group cannot hold the step by its pipe.
func TestKernelExecDoesNotWaitForTheEscaped(t *testing.T) {
	e := newTestEnv(t)
	began := time.Now()
	res, err := selfExec(t, "role-leave-escaped-child").Run(t.Context(), e.Env)
	if err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("got %+v, %v after %v", res, err, time.Since(began))
	}
	pid := childOf(t, e, false)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("kill the escaped: %v", err)
	}
}

// A hook must not inherit the daemon's protection from the out-of-memory killer.
func TestKernelExecLosesProtection(t *testing.T) {
	testkit.Need(t, testkit.SysResource)
	fs := proc.FS("/proc")
	cmd := startRole(t, "role-sleep")
	if err := os.WriteFile(fs.Path(cmd.Process.Pid, "oom_score_adj"), []byte("-500"), 0); err != nil {
		t.Fatal(err)
	}
	losePriority(fs, cmd.Process.Pid)
	if adj, err := fs.OOMScoreAdj(cmd.Process.Pid); err != nil || adj != 0 {
		t.Errorf("oom_score_adj is %d, %v; want 0", adj, err)
	}
}
