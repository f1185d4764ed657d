package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/cri/cgroupfs"
	"github.com/arbiterd/arbiter/cri/containerd"
	"github.com/arbiterd/arbiter/cri/nri"
)

func (n *node) containerdSource() *containerd.Source {
	n.t.Helper()
	s, err := containerd.New(containerd.Config{Address: n.socket(), MemoryRoot: memoryRoot(), Namespaces: []string{"k8s.io", "plain"}, ScratchDir: n.dir})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { s.Close() })
	return s
}

func (n *node) nriSource() *nri.Source {
	n.t.Helper()
	s, err := nri.New(nri.Config{Socket: n.path("nri.sock"), MemoryRoot: memoryRoot()})
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

var identityPod = podOptions{
	name: "checkout-7d", namespace: "shop-eu",
	labels:      map[string]string{"team": "payments", "app": "checkout"},
	annotations: map[string]string{"arbiter/policy": "heap"},
	limit:       256 * mib,
}

// identity is what every runtime's source must say of the container.
func identity(p *pod, c *container, source string) cri.Container {
	return cri.Container{
		ID: c.id, Name: c.name, Image: otherImage, RestartCount: 3, Source: source, Cgroup: c.cgroup(),
		Pod: cri.Pod{
			ID: p.id, UID: p.config.Metadata.Uid, Namespace: "shop-eu", Name: "checkout-7d", QoS: cri.Burstable,
			Labels: identityPod.labels, Annotations: identityPod.annotations, Cgroup: p.cgroup,
		},
	}
}

var calm = []string{"--ceiling", "1MiB"}

// TestSourcesIdentity compares what the sources say of one container, seen as
// it starts and found at the start of the source.
func TestSourcesIdentity(t *testing.T) {
	n := newNode(t, nodeOptions{})
	live := []*recorder{record(t, n.containerdSource(), nil), record(t, n.nriSource(), nil)}
	for _, r := range live {
		r.wait("up", func() bool { return r.up && r.synced > 0 })
	}
	p := n.runPod(identityPod)
	c := p.run(containerOptions{name: "app", image: otherImage, limit: 64 * mib, args: calm, attempt: 3})
	late := []*recorder{record(t, n.containerdSource(), nil), record(t, n.nriSource(), nil)}

	for i, source := range []string{"containerd", "nri"} {
		for when, r := range map[string]*recorder{"live": live[i], "late": late[i]} {
			got := r.waitFor(c)
			if got.Pid == 0 && (when == "live" || source == "nri") {
				t.Errorf("%s, %s: no pid", source, when)
			}
			got.Pid = 0
			delete(got.Pod.Labels, "name") // NRI adds the labels of the pause image
			if diff := cmp.Diff(identity(p, c, source), got); diff != "" {
				t.Errorf("%s, %s: -want +got:\n%s", source, when, diff)
			}
			r.mu.Lock()
			if len(r.now) != 1 {
				t.Errorf("%s, %s: %d containers; the pod's sandbox is none", source, when, len(r.now))
			}
			r.mu.Unlock()
		}
	}
	plain := record(t, cgroupfs.New(memoryRoot(), []string{"/" + n.name + "/**"}), nil)
	got := plain.waitFor(c)
	want := cri.Container{ID: c.id, Source: "cgroupfs", Cgroup: c.cgroup(), Pod: cri.Pod{UID: p.config.Metadata.Uid, QoS: cri.Burstable, Cgroup: p.cgroup}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cgroupfs: -want +got:\n%s", diff)
	}

	if err := c.update(96 * mib); err != nil {
		t.Fatal(err)
	}
	for i, r := range live {
		r.wait("update told", func() bool { return strings.Contains(strings.Join(r.history, ","), "updated app") })
		if i == 1 && limitOf(t, c.cgroup()) != 96*mib {
			t.Error("nri: told of the update before it was written")
		}
	}
	if err := c.stop(0); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(live, late[0], late[1], plain) {
		r.waitGone(c)
	}
}

// TestSourcesStartFirst starts the sources before containerd, restarts it, and
// kills it while containers start and end without it.
func TestSourcesSurviveContainerd(t *testing.T) {
	n := newNode(t, nodeOptions{})
	n.stop(syscall.SIGTERM)
	recs := []*recorder{record(t, n.containerdSource(), nil), record(t, n.nriSource(), nil)}
	for _, r := range recs {
		r.wait("down is told", func() bool { return r.downs > 0 && !r.up })
	}
	n.start()
	p := n.runPod(podOptions{name: "first"})
	stays := p.run(containerOptions{name: "stays", args: calm})
	ends := p.run(containerOptions{name: "ends", args: calm})
	for _, r := range recs {
		r.waitFor(stays)
		r.waitFor(ends)
	}
	for round, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		pid := recs[1].waitFor(ends).Pid
		n.stop(sig)
		for _, r := range recs {
			r.wait("the end is told", func() bool { return !r.up })
		}
		must(syscall.Kill(pid, syscall.SIGKILL))
		n.start()
		for _, r := range recs {
			r.waitGone(ends)
			r.waitFor(stays)
			r.wait("up again", func() bool { return r.up && r.ups > round })
		}
		ends = p.run(containerOptions{name: "ends", args: calm, attempt: uint32(round + 1)})
		for _, r := range recs {
			r.waitFor(ends)
		}
	}
}

// TestStartIsHeldBack checks that a container runs nothing of its own before
// the engine says that the guard is armed, and that an engine that never says
// so delays the start only a little.
func TestStartIsHeldBack(t *testing.T) {
	n := newNode(t, nodeOptions{})
	var mu sync.Mutex
	var seen []string
	silent := false
	r := record(t, n.nriSource(), func(ev cri.Event) {
		if ev.Done == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, commandOf(t, ev.Container.Pid))
		if !silent {
			time.Sleep(200 * time.Millisecond)
			seen = append(seen, commandOf(t, ev.Container.Pid))
			ev.Done()
			ev.Done() // twice does no harm
		}
	})
	r.wait("up", func() bool { return r.up && r.synced > 0 })
	p := n.runPod(podOptions{name: "held-back"})
	p.run(containerOptions{name: "a", args: calm})
	mu.Lock()
	for _, cmd := range seen {
		if !strings.Contains(cmd, "runc") {
			t.Errorf("while the guard was being armed the container ran %q", cmd)
		}
	}
	if len(seen) != 2 {
		t.Errorf("the start was seen %d times", len(seen))
	}
	silent = true
	mu.Unlock()

	start := time.Now()
	c := p.run(containerOptions{name: "b", args: calm})
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Errorf("an unanswered start took %v: it was not held back", d)
	}
	r.waitFor(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.downs > 0 {
		t.Errorf("the plugin was disconnected %d times", r.downs)
	}
}

// commandOf is the command line of a process.
func commandOf(t testing.TB, pid int) string {
	b, err := readFile("/proc", pid, "cmdline")
	if err != nil {
		t.Errorf("first process: %v", err)
	}
	return strings.ReplaceAll(string(b), "\x00", " ")
}

// TestAnnounceOOM kills a container as Arbiter does, before and after the
// announcement: the CRI must give memory as the reason either way.
func TestAnnounceOOM(t *testing.T) {
	n := newNode(t, nodeOptions{})
	s := n.containerdSource()
	r := record(t, s, nil)
	p := n.runPod(podOptions{name: "oom"})
	for _, order := range []string{"none", "before", "after"} {
		t.Run(order, func(t *testing.T) {
			c := p.run(containerOptions{name: order, args: calm})
			id := r.waitFor(c)
			want := "OOMKilled"
			if order == "none" {
				want = "Error"
			}
			announce := func(when string) {
				if order != when {
					return
				}
				if err := s.AnnounceOOM(n.call(short), id); err != nil {
					t.Error(err)
				}
			}
			announce("before")
			must(syscall.Kill(id.Pid, syscall.SIGKILL))
			_, code := c.ended(t)
			announce("after")
			if code != 137 {
				t.Errorf("exit code %d", code)
			}
			eventually(t, short, "reason "+want, func() error {
				if got := c.status(t).GetReason(); got != want {
					return fmt.Errorf("reason %q", got)
				}
				return nil
			})
		})
	}
	if err := s.AnnounceOOM(n.call(short), cri.Container{Cgroup: "/x"}); err == nil {
		t.Error("no error for a container that no runtime knows")
	}
}

// TestExecIn runs commands in a container.
func TestExecIn(t *testing.T) {
	n := newNode(t, nodeOptions{})
	s := n.containerdSource()
	r := record(t, s, nil)
	p := n.runPod(podOptions{name: "exec"})
	c := p.run(containerOptions{name: "app", args: calm})
	id := r.waitFor(c)
	exec := func(ctx context.Context, args ...string) (string, int, error) {
		out, exit, err := s.ExecIn(ctx, id, cri.Command{Argv: append([]string{"/memleak"}, args...), Env: []string{"ARBITER_CASE=x"}, Stdin: []byte("x")})
		return string(out), exit, err
	}
	if out, exit, err := exec(n.call(short), "--wait", "--ceiling", "1MiB", "--exit"); err != nil || exit != 0 || !strings.Contains(out, "memleak:") {
		t.Errorf("a command that ends: %q, %d, %v", out, exit, err)
	}
	if out, exit, err := exec(n.call(short), "--nonsense"); err != nil || exit != 2 || !strings.Contains(out, "nonsense") {
		t.Errorf("a command that fails: %q, %d, %v", out, exit, err)
	}
	if _, _, err := s.ExecIn(n.call(short), id, cri.Command{Argv: []string{"/no-such-thing"}}); err == nil || !strings.Contains(err.Error(), "no-such-thing") {
		t.Errorf("a command that is not there: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, _, err := exec(ctx, "--ceiling", "1MiB")
		ended <- err
	}()
	eventually(t, short, "the command has the case's variables beside the container's", func() error {
		procs := strings.Fields(read(t, memoryRoot()+c.cgroup()+"/cgroup.procs"))
		for _, pid := range procs {
			b, _ := os.ReadFile("/proc/" + pid + "/environ")
			if env := strings.Split(string(b), "\x00"); slices.Contains(env, "ARBITER_CASE=x") && len(env) > 2 {
				return nil
			}
		}
		return fmt.Errorf("not among %v", procs)
	})
	if <-ended == nil {
		t.Error("a command that does not end: no error")
	}
	if procs := strings.Fields(read(t, memoryRoot()+c.cgroup()+"/cgroup.procs")); len(procs) != 1 {
		t.Errorf("processes %v are left", procs)
	}
	if left := leftIn(t, n.dir, "arbiter-exec-"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
