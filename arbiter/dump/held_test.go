package dump

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A held is a target that stands still at its memory limit, as in production:
// armed, caught by the limit's event, frozen.
type held struct {
	*target
	cg      cgroup.Cgroup
	version int
	dirs    []string // its cgroup's, in each hierarchy
	counter string   // the file in which it counts the pages that it touches
}

// holdAtLimit starts a command in a cgroup of its own, lets it run into its
// limit, and freezes it there. The command waits for a byte on its standard
// input and prints a line before it grows.
func holdAtLimit(t testing.TB, limit uint64, argv ...string) *held {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan cgroup.Event, 1000)
	hierarchy, err := cgroup.Open("/sys/fs/cgroup", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	hierarchy.Handle(func(e cgroup.Event) {
		select {
		case events <- e:
		default:
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- hierarchy.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; hierarchy.Close() })

	path := fmt.Sprintf("/arbiter-test-dump-%d-%d", os.Getpid(), time.Now().UnixNano())
	h := &held{version: hierarchy.Version(), counter: filepath.Join(t.TempDir(), "counter")}
	if err := os.WriteFile(h.counter, make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	h.dirs = makeCgroup(t, h.version, path, limit)
	h.target = startIn(t, h.dirs, h.counter, argv)
	if h.cg, err = hierarchy.Get(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.end(t) })
	if st, err := h.cg.Arm(ctx, cgroup.ArmOptions{Hold: true}); err != nil || st.State == cgroup.Failed {
		t.Fatalf("arm: %+v, %v", st, err)
	}
	if _, err := h.stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	h.readInfo(t)
	awaitLimit(t, events)
	if err := h.cg.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *held) end(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.cg.Kill(ctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("kill: %v", err)
	}
	if err := h.cg.Disarm(ctx); err != nil {
		t.Errorf("disarm: %v", err)
	}
	_ = h.cmd.Wait()
	h.cg.Close()
}

// makeCgroup makes a memory cgroup, and on version 1 a freezer cgroup.
func makeCgroup(t testing.TB, version int, path string, limit uint64) (dirs []string) {
	t.Helper()
	dirs, name := []string{"/sys/fs/cgroup" + path}, "memory.max"
	if version == 1 {
		dirs, name = []string{"/sys/fs/cgroup/memory" + path, "/sys/fs/cgroup/freezer" + path}, "memory.limit_in_bytes"
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			eventually(t, "removed", func() bool {
				err := os.Remove(dir)
				return err == nil || errors.Is(err, fs.ErrNotExist)
			})
		})
	}
	if err := os.WriteFile(filepath.Join(dirs[0], name), []byte(strconv.FormatUint(limit, 10)), 0); err != nil {
		t.Fatal(err)
	}
	if version == 2 { // with swap on, it is used up before the limit is reached
		if err := os.WriteFile(filepath.Join(dirs[0], "memory.swap.max"), []byte("25165824"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return dirs
}

func startIn(t testing.TB, dirs []string, counter string, argv []string) *target {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "ARBITER_WAIT=1", "ARBITER_COUNTER="+counter)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			_ = cmd.Process.Kill()
			t.Fatal(err)
		}
	}
	return &target{cmd: cmd, pid: cmd.Process.Pid, stdin: stdin, stdout: bufio.NewReader(stdout)}
}

func (tg *target) readInfo(t testing.TB) {
	t.Helper()
	line, err := tg.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("read from target: %v", err)
	}
	if err := json.Unmarshal(line, &tg.Info); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
}

func awaitLimit(t testing.TB, events <-chan cgroup.Event) {
	t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		select {
		case e := <-events:
			if e.Kind == cgroup.EventLimit {
				return
			}
		case <-timeout:
			t.Fatal("no limit event in 60 s")
		}
	}
}

// count is how many pages the target has touched.
func (h *held) count(t testing.TB) uint64 { return countIn(t, h.counter) }

func countIn(t testing.TB, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b)
}

// hold is how its threads get into their traps.
func (h *held) hold() Hold {
	hold := Hold{Pids: h.cg.Pids}
	if t, ok := h.cg.(cgroup.Trapper); ok {
		hold.Trap = t.Trapped
	}
	return hold
}

// dumpWith dumps with a changed request; it must succeed.
func (h *held) dumpWith(t testing.TB, change func(*Request)) (Report, string) {
	t.Helper()
	report, name, err := h.dumpChanged(t, h.hold(), change)
	if err != nil {
		t.Fatal(err)
	}
	return report, name
}

func (h *held) dump(t testing.TB, hold Hold) (Report, string, error) {
	t.Helper()
	return h.dumpChanged(t, hold, nil)
}

func (h *held) dumpChanged(t testing.TB, hold Hold, change func(*Request)) (Report, string, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "core.elf")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var report Report
	err = h.cg.Guarded(ctx, func() error {
		req := Request{Held: []Process{h.process(t)}, Targets: []Target{{Pid: h.pid}}}
		if change != nil {
			change(&req)
		}
		report, err = Helper{}.Dump(ctx, req, []*os.File{f}, hold, nil)
		return err
	})
	return report, name, err
}

// frozen reports whether the kernel says that the container stands still.
func (h *held) frozen(t testing.TB) bool {
	t.Helper()
	path := h.cg.Path()
	name, want := "/sys/fs/cgroup"+path+"/cgroup.events", "frozen 1"
	if h.version == 1 {
		name, want = "/sys/fs/cgroup/freezer"+path+"/freezer.state", "FROZEN"
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if lines.Text() == want {
			return true
		}
	}
	return false
}

// compare compares the core with the process, protected from what that may
// charge: to read shared memory that was never touched makes it.
func (h *held) compare(t testing.TB, name string) {
	t.Helper()
	err := h.cg.Guarded(context.Background(), func() error {
		compare(t, openCore(t, name), h.target)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
