package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/cmd/memleak/progress"
)

// At its limit, with the kernel's killer off, a run stands still; with more
// room it goes on and its data is what it wrote.
func TestKernelStandsStillAtTheLimitAndGoesOn(t *testing.T) {
	dir := newV1(t, 32<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	file := filepath.Join(t.TempDir(), "progress")
	cmd := memleak(ctx, t, "--cgroup", dir, "--threads", "3", "--verify", "--progress", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	await(ctx, t, func() bool { return strings.Contains(read(t, dir, "memory.oom_control"), "under_oom 1") })
	still := standsStill(ctx, t, file)
	if mib := still.Pages / 256; mib < 24 || mib > 32 {
		t.Errorf("%d MiB touched at a limit of 32 MiB: the program itself takes too much", mib)
	}
	if still.TotalErrors() != 0 {
		t.Errorf("page faults failed: %v", still)
	}
	limit := 64 << 20
	await(ctx, t, func() bool { // one wake-up after a raise can be lost: raise again
		limit += 4096
		write(t, dir, "memory.limit_in_bytes", strconv.Itoa(limit))
		r, err := progress.Read(file)
		return err == nil && r.Pages > still.Pages
	})
	more := awaitPages(ctx, t, file, still.Pages+1024)
	if more.Mismatches != 0 || more.Checked == 0 {
		t.Errorf("after the raise: %v", more)
	}
	if kills := strings.Contains(read(t, dir, "memory.oom_control"), "oom_kill 0"); !kills {
		t.Errorf("the kernel killed: %s", read(t, dir, "memory.oom_control"))
	}
}

// standsStill waits until no page was touched for a while.
func standsStill(ctx context.Context, t *testing.T, file string) progress.Report {
	t.Helper()
	var last progress.Report
	await(ctx, t, func() bool {
		r, err := progress.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		last = r
		return r.LastTouch > 0 && progress.Now()-r.LastTouch > uint64(300*time.Millisecond)
	})
	return last
}

// newV1 is a v1 memory cgroup with the out-of-memory killer off. Whatever is
// left in it is killed at the end.
func newV1(t *testing.T, limit int) string {
	t.Helper()
	const root = "/sys/fs/cgroup/memory"
	if _, err := os.Stat(root + "/memory.limit_in_bytes"); err != nil {
		t.Skip("needs kernel feature: cgroup v1 memory controller")
	}
	dir, err := os.MkdirTemp(root, "arbiter-test-memleak-")
	if err != nil {
		t.Skip("needs kernel feature: writable cgroup v1 memory hierarchy")
	}
	t.Cleanup(func() {
		write(t, dir, "memory.oom_control", "0")
		for range 500 {
			if os.Remove(dir) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is still in use", dir)
	})
	write(t, dir, "memory.limit_in_bytes", strconv.Itoa(limit))
	write(t, dir, "memory.oom_control", "1")
	return dir
}

func write(t *testing.T, dir, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func await(ctx context.Context, t *testing.T, done func() bool) {
	t.Helper()
	for !done() {
		if ctx.Err() != nil {
			t.Fatal("waited in vain")
		}
		time.Sleep(2 * time.Millisecond)
	}
}
