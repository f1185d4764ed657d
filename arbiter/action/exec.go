package action

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// Exec runs a program: on the host in the daemon's own cgroup, so that it is
// never short of memory together with the container, or in the container
// through its runtime.
type Exec struct{ policy.ExecOptions }

var _ Action = Exec{}

func newExec(o policy.ExecOptions) Exec { return Exec{o} }

// pipesClose is how long a program's output is still read after its end, when
// a descendant that left its process group holds the pipe open.
const pipesClose = 500 * time.Millisecond

// Run runs the program with the case as JSON on standard input and its facts
// as variables. Exit status 0
// is success. Its output, bounded, becomes an artifact, and the end of it the
// summary.
func (x Exec) Run(ctx context.Context, env Env) (Result, error) {
	if len(x.Argv) == 0 || !filepath.IsAbs(x.Argv[0]) {
		return Result{}, fmt.Errorf("exec %q: want an absolute path and its arguments", x.Argv)
	}
	out := newCapture(env.Artifacts, outputName(env.Step))
	var exit int
	var err error
	if x.In == "container" {
		exit, err = x.inContainer(ctx, env, out)
	} else {
		exit, err = x.onHost(ctx, env, out)
	}
	res := Result{
		Summary: fmt.Sprintf("%s: exit status %d%s", filepath.Base(x.Argv[0]), exit, out.quote()),
		Details: map[string]string{"exitStatus": strconv.Itoa(exit), "outputBytes": strconv.Itoa(out.total)},
	}
	if exit < 0 {
		res.Summary = fmt.Sprintf("%s: no exit status%s", filepath.Base(x.Argv[0]), out.quote())
		delete(res.Details, "exitStatus")
	}
	if err == nil && exit != 0 {
		err = fmt.Errorf("exit status %d%s", exit, out.quote())
	}
	if err := errors.Join(err, out.close()); err != nil {
		return res, fmt.Errorf("exec %s: %w", x.Argv[0], err)
	}
	return res, nil
}

func outputName(step policy.Step) string {
	if step.Name == "" {
		return "exec.txt"
	}
	return step.Name + ".txt"
}

// inContainer leaves the running to the container's runtime.
func (x Exec) inContainer(ctx context.Context, env Env, out *capture) (exit int, err error) {
	if env.ExecIn == nil {
		return -1, fmt.Errorf("in the container: its source has no runtime that runs commands: %w", cgroup.ErrNotSupported)
	}
	output, exit, err := env.ExecIn(ctx, cri.Command{Argv: x.Argv, Env: environ(x.variables(env)), Stdin: env.CaseJSON()})
	_, _ = out.Write(output)
	if err != nil {
		return -1, fmt.Errorf("in the container: %w", err)
	}
	return exit, nil
}

// onHost runs the program in a process group of its own, which is killed as a
// whole when the program has ended or ctx is done: what it started in the
// background does not outlive the step.
func (x Exec) onHost(ctx context.Context, env Env, out *capture) (exit int, err error) {
	credential, err := credentialOf(x.User)
	if err != nil {
		return -1, err
	}
	cmd := exec.Command(x.Argv[0], x.Argv[1:]...)
	cmd.Stdin = bytes.NewReader(env.CaseJSON())
	cmd.Stdout, cmd.Stderr = out, out
	vars := map[string]string{"PATH": hostPath} // and nothing of the daemon's own
	maps.Copy(vars, x.variables(env))
	cmd.Env = environ(vars)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	cmd.WaitDelay = pipesClose
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	losePriority(env.Proc, cmd.Process.Pid)
	waitErr := awaitEnd(ctx, env.Proc, cmd.Process.Pid)
	// The program is not reaped yet, so its group cannot be another one's.
	killErr := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	err = cmd.Wait()
	if ctx.Err() != nil && waitErr != nil {
		return -1, fmt.Errorf("killed: %w", ctx.Err())
	}
	if errors.Is(killErr, unix.ESRCH) {
		killErr = nil // nothing was left of the group
	}
	exit = cmd.ProcessState.ExitCode()
	if status := new(exec.ExitError); errors.As(err, &status) && exit > 0 || errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the exit status says it; the output's end is in the hands of an escaped descendant
	}
	return exit, errors.Join(err, killErr, waitErr)
}

// awaitEnd returns once the program has ended, without reaping it.
func awaitEnd(ctx context.Context, fs proc.FS, pid int) error {
	p, err := fs.OpenProcess(pid)
	if errors.Is(err, proc.ErrGone) {
		return nil // a child that nobody reaped is gone only as a zombie
	}
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Wait(ctx)
}

// losePriority takes the daemon's protection from the kernel's out-of-memory
// killer away from a program that inherited it.
func losePriority(fs proc.FS, pid int) {
	if adj, err := fs.OOMScoreAdj(pid); err == nil && adj < 0 {
		// It may have ended already; and whoever may not write here has not
		// been protected either.
		_ = os.WriteFile(fs.Path(pid, "oom_score_adj"), []byte("0"), 0)
	}
}
