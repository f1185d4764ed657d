package cgroupfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/cri/cgroupfs"
)

const id = "2f0b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809"

// memoryRoot is the mount of the hierarchy with the memory controller.
func memoryRoot(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		if unix.Access(root+"/cgroup.procs", unix.W_OK) == nil {
			return root
		}
	}
	t.Skip("needs kernel feature: a writable cgroup hierarchy")
	return ""
}

// testDir makes a cgroup of the test's own and removes what is in it afterwards.
func testDir(t *testing.T, root string) (rel string) {
	t.Helper()
	dir, err := os.MkdirTemp(root, "arbiter-test-cgroupfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, dir) })
	return "/" + filepath.Base(dir)
}

func removeTree(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeTree(t, filepath.Join(dir, e.Name()))
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("clean up: %v", err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func rmdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A run is a source at work, and what it said.
type run struct {
	events chan cri.Event
	mu     sync.Mutex
	health []error
}

func start(t *testing.T, root string, globs ...string) *run {
	t.Helper()
	r := &run{events: make(chan cri.Event, 4096)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- cgroupfs.New(root, globs).Run(ctx, func(ev cri.Event) { r.events <- ev }, func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.health = append(r.health, err)
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end with its context")
		}
	})
	return r
}

// next is the next event as "kind path", for comparison.
func (r *run) next(t *testing.T) (string, cri.Container) {
	t.Helper()
	select {
	case ev := <-r.events:
		kind := map[cri.EventKind]string{cri.Added: "added", cri.Removed: "removed", cri.Synced: "synced", cri.Updated: "updated"}[ev.Kind]
		return strings.TrimSpace(kind + " " + ev.Container.Cgroup), ev.Container
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return "", cri.Container{}
	}
}

func (r *run) want(t *testing.T, events ...string) {
	t.Helper()
	for _, want := range events {
		if got, _ := r.next(t); got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	}
}

func TestKernelFollowsCgroups(t *testing.T) {
	t.Parallel()
	root := memoryRoot(t)
	dir := testDir(t, root)
	mkdir(t, root+dir+"/svc/old.service")
	mkdir(t, root+dir+"/svc/other")
	r := start(t, root, dir+"/svc/*.service", dir+"/later/*/x")
	r.want(t, "added "+dir+"/svc/old.service", "synced")

	mkdir(t, root+dir+"/svc/new.service")
	r.want(t, "added "+dir+"/svc/new.service")
	mkdir(t, root+dir+"/svc/new.service/inner.service")
	rmdir(t, root+dir+"/svc/old.service")
	r.want(t, "removed "+dir+"/svc/old.service")
	mkdir(t, root+dir+"/later/a/x")
	r.want(t, "added "+dir+"/later/a/x")
	rmdir(t, root+dir+"/later/a/x")
	rmdir(t, root+dir+"/later/a")
	r.want(t, "removed "+dir+"/later/a/x")
	mkdir(t, root+dir+"/later/a/x")
	r.want(t, "added "+dir+"/later/a/x")
}

func TestKernelIdentityFromPath(t *testing.T) {
	t.Parallel()
	root := memoryRoot(t)
	dir := testDir(t, root)
	pod := dir + "/kubepods/burstable/pod1-2-3"
	mkdir(t, root+pod+"/"+id+"/inner")
	mkdir(t, root+dir+"/libpod-"+id+".scope/container")
	mkdir(t, root+dir+"/web.service")
	r := start(t, root, dir+"/kubepods/**", dir+"/*.s*")
	found := map[string]cri.Container{}
	for {
		what, c := r.next(t)
		if what == "synced" {
			break
		}
		found[c.Cgroup] = c
	}
	if len(found) != 5 { // with /kubepods and /kubepods/burstable, which the broad glob names
		t.Errorf("found %d cgroups: %v", len(found), found)
	}
	if c := found[pod+"/"+id]; c.ID != id || c.Pod.UID != "1-2-3" || c.Pod.QoS != cri.Burstable || c.Pod.Cgroup != pod || c.Source != "cgroupfs" {
		t.Errorf("kubernetes: %+v", c)
	}
	if c := found[dir+"/libpod-"+id+".scope"]; c.ID != id {
		t.Errorf("podman: %+v", c)
	}
	if c := found[dir+"/web.service"]; c.Name != "web.service" || c.ID != "" {
		t.Errorf("service: %+v", c)
	}
}

// TestKernelLimits writes limits of a cgroup that was reported, as a runtime
// does after it has made it.
func TestKernelLimits(t *testing.T) {
	t.Parallel()
	root := memoryRoot(t)
	dir := testDir(t, root)
	r := start(t, root, dir+"/*")
	r.want(t, "synced")
	for range 2 {
		mkdir(t, root+dir+"/c")
		r.want(t, "added "+dir+"/c")
		for _, limit := range []string{"64M", "32M"} {
			written := false
			for _, name := range []string{"memory.limit_in_bytes", "memory.max"} {
				f, err := os.OpenFile(root+dir+"/c/"+name, os.O_WRONLY, 0) // truncating would be another event
				if err == nil {
					_, err = f.WriteString(limit)
					written = err == nil
					f.Close()
				}
			}
			if !written {
				t.Skip("needs kernel feature: memory controller")
			}
			r.want(t, "updated "+dir+"/c")
		}
		rmdir(t, root+dir+"/c")
		r.want(t, "removed "+dir+"/c")
	}
}

// TestKernelChurn makes and removes cgroups as fast as it can, faster than the
// source reads: in the end the source knows what exists and nothing else.
func TestKernelChurn(t *testing.T) {
	t.Parallel()
	root := memoryRoot(t)
	dir := testDir(t, root)
	r := start(t, root, dir+"/**/c*")
	r.want(t, "synced")
	var workers sync.WaitGroup
	for n := range 4 {
		workers.Go(func() {
			for i := range 50 {
				deep := fmt.Sprintf("%s%s/w%d/c%d", root, dir, n, i%3)
				if err := os.MkdirAll(deep, 0o755); err != nil {
					t.Error(err)
				}
				if i < 48 {
					_ = os.Remove(deep)
					_ = os.Remove(filepath.Dir(deep))
				}
			}
		})
	}
	workers.Wait()
	mkdir(t, root+dir+"/last/c")
	alive := map[string]int{}
	for {
		what, c := r.next(t)
		switch kind, _, _ := strings.Cut(what, " "); kind {
		case "added":
			alive[c.Cgroup]++
		case "removed":
			alive[c.Cgroup]--
		}
		if n := alive[c.Cgroup]; n < 0 || n > 1 {
			t.Fatalf("%s: reported %d times", what, n)
		}
		if what == "added "+dir+"/last/c" {
			break
		}
	}
	left := 0
	for rel, n := range alive {
		_, err := os.Stat(root + rel)
		if (err == nil) != (n == 1) {
			t.Errorf("%s: reported %d, exists: %v", rel, n, err == nil)
		}
		left += n
	}
	if left != 9 {
		t.Errorf("%d cgroups known, want the last 2 of each worker and 1", left)
	}
}

// TestRootAppears starts before the hierarchy is there.
func TestRootAppears(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	root := filepath.Join(tmp, "cgroup")
	r := start(t, root, "/a/*")
	waitHealth(t, r, false)
	mkdir(t, tmp+"/new/a/b")
	if err := os.Rename(tmp+"/new", root); err != nil {
		t.Fatal(err)
	}
	r.want(t, "added /a/b", "synced")
	waitHealth(t, r, true)
	if err := os.Rename(root+"/a/b", root+"/a/c"); err != nil {
		t.Fatal(err)
	}
	r.want(t, "removed /a/b", "added /a/c")
}

func waitHealth(t *testing.T, r *run, up bool) {
	t.Helper()
	for range 1000 {
		r.mu.Lock()
		n := len(r.health)
		ok := n > 0 && (r.health[n-1] == nil) == up
		r.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("health never told up=%v: %v", up, r.health)
}

func TestBadPattern(t *testing.T) {
	t.Parallel()
	err := cgroupfs.New(t.TempDir(), []string{"no/slash"}).Run(t.Context(), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no/slash") {
		t.Errorf("error %v does not name the pattern", err)
	}
}
