package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// TestMain lets this binary be the program that exec runs: no test needs a
// shell. What it does is told by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if play, ok := roles[os.Args[1]]; ok {
			os.Exit(play())
		}
	}
	testkit.Main(m) // or a process of a test cgroup
}

var roles = map[string]func() int{
	"role-report": func() int { // tells what it was given
		in, _ := io.ReadAll(os.Stdin)
		_ = json.NewEncoder(os.Stdout).Encode(gotten{string(in), os.Args[2:], os.Environ(), unix.Getpgrp() == os.Getpid()})
		return 0
	},
	"role-fail": func() int {
		fmt.Fprintln(os.Stdout, "some output")
		fmt.Fprintln(os.Stderr, "disk\x1b[31m is full")
		return 3
	},
	"role-flood": func() int {
		for range 3 {
			_, _ = os.Stdout.Write(make([]byte, maxOutput))
		}
		return 0
	},
	"role-sleep": sleepUntilKilled,
	"role-fill":  fillAndWait, // for core-dump
	"dump":       dumpHelper,
	// A background process that keeps the output's pipe, and ignores SIGTERM.
	"role-leave-child": func() int { return withChild(false, 0) },
	"role-stay-with-child": func() int {
		withChild(false, 0)
		return sleepUntilKilled()
	},
	"role-leave-escaped-child": func() int { return withChild(true, 0) },
	"role-cgroup": func() int {
		b, _ := os.ReadFile("/proc/self/cgroup")
		_, _ = os.Stdout.Write(b)
		return 0
	},
	"role-no-stdin": func() int {
		_ = os.Stdin.Close()
		return 0
	},
}

type gotten struct {
	Stdin string
	Args  []string
	Env   []string
	Group bool // leads its own process group
}

func sleepUntilKilled() int {
	signal.Ignore(unix.SIGTERM, unix.SIGHUP)
	time.Sleep(time.Minute)
	return 0
}

func withChild(escape bool, exit int) int {
	child := exec.Command("/proc/self/exe", "role-sleep")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: escape}
	if err := child.Start(); err != nil {
		return 99
	}
	fmt.Println(child.Process.Pid)
	return exit
}

func selfExec(t *testing.T, args ...string) Exec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newExec(policy.ExecOptions{Argv: append([]string{self}, args...)})
}

func TestExecHandsTheCaseOver(t *testing.T) {
	t.Setenv("DAEMONS_OWN", "secret")
	e := newTestEnv(t)
	x := selfExec(t, "role-report", "a b", "$HOME;*")
	x.Env = map[string]string{"EXTRA": "1", "PATH": "/mine"}
	res, err := x.Run(t.Context(), e.Env)
	if err != nil {
		t.Fatal(err)
	}
	var got gotten
	if err := json.Unmarshal([]byte(e.files.read(t, "a-step.txt")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Stdin != string(e.CaseJSON()) || !slices.Equal(got.Args, []string{"a b", "$HOME;*"}) || !got.Group {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{
		"ARBITER_CASE=" + e.Case, "ARBITER_RULE=a-rule", "ARBITER_STEP=a-step", "ARBITER_TRIGGER=limit",
		"ARBITER_NAMESPACE=shop", "ARBITER_POD=checkout-1", "ARBITER_CONTAINER=app", "ARBITER_CONTAINER_ID=c1",
		"ARBITER_CGROUP=/kubepods/pod1/c1", "ARBITER_LIMIT_BYTES=268435456", "ARBITER_USAGE_BYTES=230686720",
		"EXTRA=1", "PATH=/mine",
	} {
		if !slices.Contains(got.Env, want) {
			t.Errorf("environment lacks %s: %q", want, got.Env)
		}
	}
	for _, v := range got.Env {
		if strings.HasPrefix(v, "DAEMONS_OWN") {
			t.Errorf("the daemon's own environment leaked: %s", v)
		}
	}
	if res.Details["exitStatus"] != "0" {
		t.Errorf("got %+v", res)
	}
}

func TestExecFailure(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	res, err := selfExec(t, "role-fail").Run(t.Context(), e.Env)
	if err == nil || !strings.Contains(err.Error(), "exit status 3: disk?[31m is full") {
		t.Errorf("got %v, want the status and the last line, escaped", err)
	}
	if res.Details["exitStatus"] != "3" || !strings.Contains(e.files.read(t, "a-step.txt"), "some output\n") {
		t.Errorf("got %+v, %v", res, e.files.names(t))
	}
}

func TestExecBadArguments(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]Exec{
		"none":         newExec(policy.ExecOptions{}),
		"relative":     newExec(policy.ExecOptions{Argv: []string{"ls"}}),
		"no such file": newExec(policy.ExecOptions{Argv: []string{"/no/such/file"}}),
		"no such user": newExec(policy.ExecOptions{Argv: []string{"/proc/self/exe"}, User: "no-such-user"}),
		"no runtime":   newExec(policy.ExecOptions{Argv: []string{"/bin/ls"}, In: "container"}),
	} {
		e := newTestEnv(t)
		if res, err := x.Run(t.Context(), e.Env); err == nil {
			t.Errorf("%s: got %+v, want an error", name, res)
		} else if (name == "no runtime") != errors.Is(err, cgroup.ErrNotSupported) {
			t.Errorf("%s: got %v", name, err)
		}
		if names := e.files.names(t); len(names) > 0 {
			t.Errorf("%s: left %v", name, names)
		}
	}
}

func TestExecInContainer(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	e.ExecIn = func(_ context.Context, cmd cri.Command) ([]byte, int, error) {
		for _, want := range []string{"ARBITER_CASE=" + e.Case, "COLOR=red"} {
			if !slices.Contains(cmd.Env, want) {
				t.Errorf("%q is not in the environment %q", want, cmd.Env)
			}
		}
		return fmt.Appendf(nil, "%q %s", cmd.Argv, cmd.Stdin), 4, nil
	}
	o := policy.ExecOptions{Argv: []string{"/bin/x", "-a"}, In: "container", Env: map[string]string{"COLOR": "red"}}
	res, err := newExec(o).Run(t.Context(), e.Env)
	if err == nil || res.Details["exitStatus"] != "4" {
		t.Errorf("got %+v, %v; want exit status 4 as an error", res, err)
	}
	if got, want := e.files.read(t, "a-step.txt"), `["/bin/x" "-a"] `+string(e.CaseJSON()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestExecBoundsOutput(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	res, err := selfExec(t, "role-flood").Run(t.Context(), e.Env)
	if err != nil || res.Details["outputBytes"] != strconv.Itoa(3*maxOutput) {
		t.Fatalf("got %+v, %v", res, err)
	}
	text := e.files.read(t, "a-step.txt")
	if len(text) > maxOutput+100 || !strings.HasSuffix(text, "bytes more were not kept]\n") {
		t.Errorf("kept %d bytes, ending in %q", len(text), text[len(text)-60:])
	}
}

// A full disk fails the step, but the program still runs to its end.
func TestExecFullDisk(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	e.files.full = true
	res, err := selfExec(t, "role-flood").Run(t.Context(), e.Env)
	if !errors.Is(err, errDiskFull) || res.Details["exitStatus"] != "0" {
		t.Errorf("got %+v, %v", res, err)
	}
	if e.files.aborted["a-step.txt"] == nil {
		t.Error("the artifact was not aborted")
	}
}

func TestExecProgramThatReadsNothing(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	e.CaseJSON = func() []byte { return make([]byte, 1<<20) }
	if res, err := selfExec(t, "role-no-stdin").Run(t.Context(), e.Env); err != nil {
		t.Errorf("got %+v, %v", res, err)
	}
}
