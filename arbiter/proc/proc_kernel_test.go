package proc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // lets the abandoned readers go
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err == nil {
			_ = f.Close()
		}
	})
}

const sleepEnv = "PROC_TEST_SLEEP"

// TestMain lets this binary be a process that only waits.
func TestMain(m *testing.M) {
	if os.Getenv(sleepEnv) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

// sleeper starts a process that waits until the test ends.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{sleepEnv + "=1"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestKernelReadsOurselves(t *testing.T) {
	fs, pid := FS("/proc"), os.Getpid()
	st, err := fs.Stat(pid)
	if err != nil || st.PPid != os.Getppid() || st.Start == 0 || st.Threads < 1 {
		t.Errorf("stat: %+v, %v", st, err)
	}
	status, err := fs.Status(pid)
	if err != nil || status.UIDs[1] != os.Geteuid() || status.VmRSS == 0 || status.RssAnon == 0 || len(status.NSPids) == 0 {
		t.Errorf("status: %+v, %v", status, err)
	}
	args, err := fs.Cmdline(t.Context(), pid)
	if err != nil || len(args) != len(os.Args) {
		t.Errorf("cmdline: %q, %v", args, err)
	}
	top, err := fs.LargestMappings(t.Context(), pid, 5)
	if err != nil || len(top) != 5 || top[0].Rss < top[4].Rss || top[0].Rss == 0 {
		t.Errorf("mappings: %+v, %v", top, err)
	}
	if sum, err := fs.SmapsRollup(t.Context(), pid); err != nil || sum.Rss < top[0].Rss {
		t.Errorf("rollup: %+v, %v", sum, err)
	}
	ms, err := fs.Cgroups(pid)
	if _, ok := Memory(ms); err != nil || !ok {
		t.Errorf("cgroup: %+v, %v", ms, err)
	}
	mounts, err := fs.Mounts(pid)
	if err != nil || len(mounts) == 0 {
		t.Errorf("mounts: %d, %v", len(mounts), err)
	}
	if ns, err := fs.Namespace(pid, "net"); err != nil || ns == 0 {
		t.Errorf("namespace: %d, %v", ns, err)
	}
	if m, err := fs.Meminfo(); err != nil || m.Available == 0 || m.Available > m.Total {
		t.Errorf("meminfo: %+v, %v", m, err)
	}
	_, err1 := fs.OOMScore(pid)
	_, err2 := fs.OOMScoreAdj(pid)
	_, err3 := fs.Wchan(pid)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Error(err)
	}
}

func TestKernelProcess(t *testing.T) {
	cmd := sleeper(t)
	fs := FS("/proc")
	p, err := fs.OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := fs.OpenSameProcess(p.Pid, p.Start+1); !errors.Is(err, ErrGone) {
		t.Errorf("another start time: got %v, want ErrGone", err)
	}
	same, err := fs.OpenSameProcess(p.Pid, p.Start)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a living process: got %v, want DeadlineExceeded", err)
	}
	if !p.Alive() {
		t.Error("not alive before the signal")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Errorf("wait after SIGKILL: %v", err)
	}
	if p.Alive() {
		t.Error("alive after SIGKILL")
	}
	_ = cmd.Wait() // reaps it: only now is the pid free
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal to the dead: got %v, want ErrGone", err)
	}
	if _, err := fs.OpenProcess(p.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("open the dead: got %v, want ErrGone", err)
	}
}
