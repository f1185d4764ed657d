// Package integration runs the real programs on this machine's real kernel:
// arbiterd under its supervisor, arbiterctl, memleak, and cgroups of the
// tests' own. The same tests run on cgroup v1 and v2.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/cmd/memleak/progress"
	"github.com/arbiterd/arbiter/tests/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const mib = 1 << 20

// rig is one daemon with its configuration, policy and state.
type rig struct {
	t      testing.TB
	dir    string
	bin    string
	daemon *exec.Cmd
	exited chan struct{}
	log    *logFile
}

// logFile collects what the daemon says, for tests that fail.
type logFile struct{ path string }

func (l *logFile) text() string {
	b, _ := os.ReadFile(l.path)
	return string(b)
}

// settings are what differs between tests' daemons.
type settings struct {
	policy string // text of the one policy file
	config string // lines beside the usual ones, with their table headers
	state  string // state directory; "" is one of the rig's own
	groups []*testkit.Group
}

// newRig writes configuration and policy. It starts nothing.
func newRig(t testing.TB, s settings) *rig {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "arbiterd")); err != nil {
		t.Fatalf("run make first: %v", err)
	}
	r := &rig{t: t, dir: t.TempDir(), bin: bin}
	r.log = &logFile{filepath.Join(r.dir, "log")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.log.text())
		}
	})
	if s.state == "" {
		s.state = filepath.Join(r.dir, "state")
	}
	var paths []string
	for _, g := range s.groups {
		paths = append(paths, fmt.Sprintf("%q", g.Path))
	}
	r.write("arbiter.toml", fmt.Sprintf(`[api]
socket = "%[1]s/sock"
[policy]
dirs = ["%[1]s/policy.d"]
[state]
dir = %[2]q
min-free = "0%%"
[source.containerd]
address = ""
[source.nri]
socket = ""
[source.cgroupfs]
paths = [%[3]s]
[log]
level = "debug"
%[4]s`, r.dir, s.state, strings.Join(paths, ", "), s.config))
	if err := os.Mkdir(filepath.Join(r.dir, "policy.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("policy.d/10-test.toml", s.policy)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// start makes a rig, starts its daemon under the supervisor, and waits until
// all groups of the settings are armed.
func start(t testing.TB, s settings) *rig {
	t.Helper()
	r := newRig(t, s)
	r.run("supervise")
	for _, g := range s.groups {
		r.awaitGuard(g.Path, "armed")
	}
	return r
}

// run starts arbiterd with a command and waits until it answers.
func (r *rig) run(command ...string) {
	r.t.Helper()
	f, err := os.OpenFile(r.log.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(filepath.Join(r.bin, "arbiterd"), append(command, "--config", filepath.Join(r.dir, "arbiter.toml"))...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	r.daemon, r.exited = cmd, exited
	r.t.Cleanup(func() { r.stop() })
	r.awaitUp()
}

// awaitUp waits until the daemon answers.
func (r *rig) awaitUp() {
	r.t.Helper()
	testkit.Eventually(r.t, "the daemon answers", func() bool {
		_, _, code := r.ctl("status")
		return code == 0
	})
}

// stop ends the daemon as systemd would.
func (r *rig) stop() {
	_ = r.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.exited:
	case <-time.After(testkit.Patience):
		r.t.Error("the daemon does not stop")
		_ = r.daemon.Process.Kill()
		<-r.exited
	}
}

// ctl runs arbiterctl.
func (r *rig) ctl(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := exec.Command(filepath.Join(r.bin, "arbiterctl"), append([]string{"--socket", filepath.Join(r.dir, "sock")}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs arbiterctl, which must succeed.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	out, errs, code := r.ctl(args...)
	if code != 0 {
		r.t.Fatalf("arbiterctl %s: exit %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func (r *rig) holds() []api.Hold {
	r.t.Helper()
	return decode[[]api.Hold](r.t, r.must("pause-list", "-o", "json"))
}

// awaitHold waits until path is held and, if step is not empty, in that step.
func (r *rig) awaitHold(path, step string) api.Hold {
	r.t.Helper()
	var found api.Hold
	testkit.Eventually(r.t, path+" is held in step "+step, func() bool {
		for _, h := range r.holds() {
			if h.Cgroup == path && (step == "" || h.Step == step) {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

func (r *rig) guard(path string) (api.Guard, bool) {
	r.t.Helper()
	for _, g := range decode[[]api.Guard](r.t, r.must("guards", "-o", "json")) {
		if g.Cgroup == path {
			return g, true
		}
	}
	return api.Guard{}, false
}

// awaitGuard waits until path's guard is in a state; "armed" also takes an
// armed guard that lacks some of the means.
func (r *rig) awaitGuard(path, state string) {
	r.t.Helper()
	testkit.Eventually(r.t, path+" is "+state, func() bool {
		g, ok := r.guard(path)
		return ok && (g.State == state || state == "armed" && g.State == "partial")
	})
}

// cases are all cases on path, the newest first.
func (r *rig) cases(path string) []casebook.Record {
	r.t.Helper()
	var out []casebook.Record
	for _, c := range decode[[]casebook.Record](r.t, r.must("cases", "-o", "json")) {
		if c.Facts.Container.Cgroup == path {
			out = append(out, c)
		}
	}
	return out
}

// awaitClosed waits until path has n closed cases and returns the newest.
func (r *rig) awaitClosed(path string, n int) casebook.Record {
	r.t.Helper()
	var rec casebook.Record
	testkit.Eventually(r.t, fmt.Sprintf("%s has %d closed cases", path, n), func() bool {
		closed := 0
		for i, c := range r.cases(path) {
			if c.Closed.IsZero() {
				continue
			}
			if closed++; i == 0 {
				rec = c
			}
		}
		return closed >= n
	})
	return rec
}

// leak is a memleak in a group.
type leak struct {
	t    testing.TB
	cmd  *exec.Cmd
	file string
	end  chan struct{}
}

// leak starts a memleak in g.
func (r *rig) leak(g *testkit.Group, args ...string) *leak {
	r.t.Helper()
	l := &leak{t: r.t, file: filepath.Join(r.t.TempDir(), "progress"), end: make(chan struct{})}
	args = append(args, "--progress", l.file, "--wait")
	l.cmd = exec.Command(filepath.Join(r.bin, "memleak"), args...)
	stdin, err := l.cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = l.cmd.Wait(); close(l.end) }()
	// A held process dies when the daemon has let it go: not waited for here.
	r.t.Cleanup(func() { _ = l.cmd.Process.Kill() })
	g.Place(l.cmd.Process.Pid)
	if _, err := stdin.Write([]byte("\n")); err != nil {
		r.t.Fatal(err)
	}
	testkit.Eventually(r.t, "memleak has begun", func() bool { _, err := progress.Read(l.file); return err == nil })
	return l
}

func (l *leak) pid() int { return l.cmd.Process.Pid }

// ended reports whether the process is gone.
func (l *leak) ended() bool {
	select {
	case <-l.end:
		return true
	default:
		return false
	}
}

func (l *leak) awaitEnd() {
	l.t.Helper()
	testkit.Eventually(l.t, "memleak ends", l.ended)
}

// report is how far it has come.
func (l *leak) report() progress.Report {
	l.t.Helper()
	p, err := progress.Read(l.file)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// metrics reads /metrics on the socket.
func (r *rig) metrics() string {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(r.dir, "sock"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://arbiter/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}
