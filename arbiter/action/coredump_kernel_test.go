package action

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/dump"
	"github.com/arbiterd/arbiter/policy"
)

// dumpHelper is the dump helper, as `arbiterd dump` is in production.
func dumpHelper() int {
	return dump.Main(context.Background(), os.Args[2:], os.Stdin, os.Stdout)
}

// fillAndWait is a process with 16 MiB that are not zero.
func fillAndWait() int {
	b := bytes.Repeat([]byte("memory, "), 2<<20)
	_, _ = os.Stdout.Write(b[:1])
	code := sleepUntilKilled()
	runtime.KeepAlive(b)
	return code
}

// coreEnv is a case on disk and two stopped processes that are its container.
func coreEnv(t *testing.T, dir string, limits casebook.Limits) (caseDir, []int) {
	t.Helper()
	c := caseIn(t, dir, limits)
	var pids []int
	for range 2 {
		cmd := exec.Command(os.Args[0], "role-fill")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(cmd.Process.Pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, cmd.Process.Pid)
	}
	cg := &fakeCgroup{pids: pids, usage: cgroup.Usage{Current: 64 << 20, Limit: policy.LimitOf(64 << 20)}}
	c.env.Cgroup, c.env.Facts.Limit = cg, policy.LimitOf(64<<20)
	return c, pids
}

func TestKernelCoreDump(t *testing.T) {
	t.Parallel()
	c, pids := coreEnv(t, t.TempDir(), casebook.Limits{})
	res, err := newCoreDump(policy.CoreDumpOptions{Process: "all", Filter: 0x33, Compress: true}).Run(context.Background(), c.env)
	if err != nil {
		t.Fatal(err)
	}
	names := c.names()
	if len(names) != 2 || len(res.After) != 2 || strings.Count(res.Summary, "core of ") != 2 {
		t.Fatalf("artifacts %q, result %+v", names, res)
	}
	raw := make([][]byte, 2)
	for i, name := range names {
		if raw[i], err = os.ReadFile(filepath.Join(c.Dir(), "artifacts", name)); err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(raw[i]))
		if err != nil || f.Type != elf.ET_CORE {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, key := range []string{"open", "data-bytes", "threads", "registers", "pid-in-container"} {
		if res.Details[key+"-"+itoa(pids[0])] == "" {
			t.Errorf("the record lacks %s", key)
		}
	}
	if open := res.Details["open-"+itoa(pids[0])]; !strings.Contains(open, "gdb ") || !strings.Contains(open, "zstd -d") || !strings.Contains(open, os.Args[0]) {
		t.Errorf("open by %q", open)
	}
	for _, after := range res.After {
		if _, err := after(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{names[0] + ".zst", names[1] + ".zst"}
	if diff := cmp.Diff(want, c.names()); diff != "" {
		t.Error(diff)
	}
	for i, name := range want {
		if got := unpack(t, c, name); !bytes.Equal(got, raw[i]) {
			t.Errorf("%s is not what was compressed", name)
		}
	}
}

func unpack(t *testing.T, c caseDir, name string) []byte {
	t.Helper()
	f, err := c.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever the disk does, the step comes to an end, and the record says what
// the core lacks or why there is none.
func TestKernelCoreDumpInBadWorlds(t *testing.T) {
	t.Parallel()
	full := func(t *testing.T) string {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	readOnly := func(t *testing.T) string {
		dir := full(t)
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, w := range []struct {
		name    string
		dir     func(*testing.T) string
		limits  casebook.Limits
		options policy.CoreDumpOptions
		missing string // in the record of a core that is kept
		fails   string // in the error, where there is none
	}{
		{name: "disk full in the middle", dir: full, missing: "left out"},
		{name: "quota of the case", dir: (*testing.T).TempDir, limits: casebook.Limits{CaseBytes: policy.Size{Bytes: 4 << 20}}, missing: "left out"},
		{name: "quota of the casebook", dir: (*testing.T).TempDir, limits: casebook.Limits{MaxBytes: policy.Size{Bytes: 4 << 20}}, missing: "left out"},
		{name: "max-size", dir: (*testing.T).TempDir, options: policy.CoreDumpOptions{MaxSize: policy.Size{Percent: 5}}, missing: "max-size is 3355443"},
		{name: "floor of free space", dir: (*testing.T).TempDir, limits: casebook.Limits{MinFree: policy.Size{Percent: 100}}, fails: "min-free"},
		{name: "directory that cannot be written", dir: readOnly, fails: "read-only"},
		{name: "no such process", dir: (*testing.T).TempDir, options: policy.CoreDumpOptions{Process: "name=nobody"}, fails: "no process name=nobody"},
	} {
		t.Run(w.name, func(t *testing.T) {
			c, pids := coreEnv(t, w.dir(t), w.limits)
			if w.options.Process == "" {
				w.options.Process = "largest"
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			res, err := newCoreDump(w.options).Run(ctx, c.env)
			if w.fails != "" {
				if err == nil || !strings.Contains(err.Error(), w.fails) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for key, value := range res.Details {
				found = found || strings.HasPrefix(key, "missing-") && strings.Contains(value, w.missing)
			}
			if !found || !strings.Contains(res.Summary, "incomplete") {
				t.Errorf("the record does not say what is missing: %+v", res)
			}
			f, err := elf.Open(filepath.Join(c.Dir(), "artifacts", c.names()[0]))
			if err != nil {
				t.Fatalf("an incomplete core cannot be opened: %v", err)
			}
			f.Close()
			for _, pid := range pids {
				eventually(t, "stopped again", func() bool {
					st, err := c.env.Proc.Stat(pid)
					return err == nil && st.State == 'T'
				})
			}
		})
	}
}

// A step that is cut off leaves a partial file and says so.
func TestKernelCoreDumpCancelled(t *testing.T) {
	t.Parallel()
	c, _ := coreEnv(t, t.TempDir(), casebook.Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := newCoreDump(policy.CoreDumpOptions{Process: "pid1"}).Run(ctx, c.env)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for _, name := range c.names() {
		if !strings.HasSuffix(name, ".partial") {
			t.Errorf("artifact %s", name)
		}
	}
}

func itoa(n int) string { return policy.LimitOf(uint64(n)).String() }
