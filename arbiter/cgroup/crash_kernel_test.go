package cgroup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// crashEnv makes the test binary a daemon that kills itself: "N PATH" ends it
// by SIGKILL right after the Nth transition of a whole life of a guard.
const crashEnv = "ARBITER_CRASH"

func TestMain(m *testing.M) {
	if job := os.Getenv(crashEnv); job != "" {
		if err := crash(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testkit.Main(m)
}

const granted = 16 * mib

// crash lives the life of a guard: armed, held, resumed with borrowed room,
// held again, resumed with granted room, disarmed. It prints every transition.
func crash(job string) error {
	count, path, _ := strings.Cut(job, " ")
	last, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	fs, err := cgroup.Open("/sys/fs/cgroup", hclog.NewNullLogger())
	if err != nil {
		return err
	}
	n := 0
	fs.OnChange = func(stage, path string) {
		n++
		fmt.Printf("%s @ %s\n", stage, path)
		if n == last {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	limits := make(chan struct{}, 4096)
	fs.Handle(func(e cgroup.Event) {
		if e.Kind == cgroup.EventLimit {
			limits <- struct{}{}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	go func() { _ = fs.Run(ctx) }()
	return life(ctx, fs, path, limits)
}

func life(ctx context.Context, fs *cgroup.FS, path string, limits chan struct{}) error {
	c, err := fs.Get(path)
	if err != nil {
		return err
	}
	limit := func() error {
		select {
		case <-limits:
			return nil
		case <-ctx.Done():
			return errors.New("no limit event")
		}
	}
	steps := []func() error{
		func() error { _, err := c.Arm(ctx, cgroup.ArmOptions{Hold: true}); return err },
		func() error { fmt.Println("armed"); return limit() },
		func() error { return c.Freeze(ctx) },
		func() error { return c.Borrow(ctx, 8*mib) },
		func() error { forget(limits); return c.Thaw(ctx) },
		limit,
		func() error { return c.Freeze(ctx) },
		func() error { return ignoreUsage(c.Restore(ctx)) },
		func() error { fmt.Println("granting"); return c.Grant(ctx, granted) },
		func() error { return c.Thaw(ctx) },
		func() error { return ignoreUsage(c.Disarm(ctx)) },
	}
	for i, step := range steps {
		if err := step(); err != nil && !errors.Is(err, cgroup.ErrGone) {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return fs.Close()
}

func forget(limits chan struct{}) {
	for len(limits) > 0 {
		<-limits
	}
}

func ignoreUsage(err error) error {
	if errors.Is(err, cgroup.ErrUsage) {
		return nil
	}
	return err
}

// A crashSite is a pod with a leaking container, and a daemon that guards it.
type crashSite struct {
	pod, ctr *testkit.Group
	leak     *testkit.Child
	other    *testkit.Child // of the same pod
	stages   []string
	killed   bool
	granting bool // room was being granted: it stays where usage needs it
}

// crashAt runs the daemon until its Nth transition; 0 lets it finish.
func crashAt(t *testing.T, n int, o testkit.Options) *crashSite {
	t.Helper()
	s := &crashSite{}
	s.pod = testkit.Tree(t, testkit.Options{Limit: 48 * mib, NoFreezer: o.NoFreezer})
	o.Limit = 48 * mib
	s.ctr = s.pod.Child("ctr", o)
	s.other = s.pod.Child("other", o).Start(testkit.Load{Kind: testkit.Sleep})
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", crashEnv, n, s.ctr.Path))
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	ended := false
	testkit.Eventually(t, "the daemon arms or dies", func() bool {
		select {
		case err = <-done:
			ended = true
		default:
		}
		return ended || strings.Contains(out.String(), "armed\n")
	})
	s.leak = s.ctr.Start(testkit.Load{Kind: testkit.Anon})
	if !ended {
		err = <-done
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Sys().(interface{ Signaled() bool }).Signaled():
		s.killed = true
	default:
		t.Fatalf("daemon: %v\n%s", err, out.String())
	}
	s.granting = strings.Contains(out.String(), "granting\n")
	for line := range strings.Lines(out.String()) {
		if stage, _, ok := strings.Cut(line, " @ "); ok {
			s.stages = append(s.stages, stage)
		}
	}
	return s
}

// check fails unless everything is as it was before the daemon, but for a
// limit that somebody else wrote, and for granted room that is in use.
func (s *crashSite) check(t *testing.T, ctrLimit uint64) {
	t.Helper()
	for _, g := range []*testkit.Group{s.pod, s.ctr} {
		want := uint64(48 * mib)
		if g == s.ctr {
			want = ctrLimit
		}
		if got := g.Limit(); got != want && (!s.granting || got != want+granted) {
			t.Errorf("%s: limit %d, want %d", g.Path, got, want)
		}
		if r := g.Record(); r != "" {
			t.Errorf("%s: record %s", g.Path, r)
		}
		if g.Version() == 1 && g.Key("memory.oom_control", "oom_kill_disable") != 0 {
			t.Errorf("%s: the flag is set", g.Path)
		}
	}
	// Nothing is frozen, stopped or asleep for ever: the leak meets the limit,
	// and the kernel kills it.
	if ctrLimit == 48*mib {
		s.leak.Await()
	}
	if s.other.Exited() {
		t.Error("another one of the pod was killed")
	}
	if state := s.leak.State(); state == 'T' || state == 'D' {
		t.Errorf("the leak is in state %c", state)
	}
}

func TestKernelCrashEverywhere(t *testing.T) {
	testkit.Need(t, testkit.Memory)
	kinds := map[string]testkit.Options{"freezer": {}}
	if testkit.Has(t, testkit.V1Freezer) {
		kinds["own freezer"] = testkit.Options{NoFreezer: true}
	}
	if testkit.Has(t, testkit.Hybrid) {
		kinds["hybrid"] = testkit.Options{NoFreezer: true, Unified: true}
	}
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t)
			last := ""
			for n := 1; ; n++ {
				s := crashAt(t, n, o)
				if !s.killed {
					t.Logf("%d transitions, %s the last", n-1, last)
					break
				}
				last = s.stages[len(s.stages)-1]
				if n > 200 {
					t.Fatal("no end of transitions")
				}
				report, err := g.Release(t.Context(), cgroup.ReleaseOptions{Path: s.ctr.Path})
				if err != nil {
					t.Errorf("release: %v", err)
				}
				s.check(t, 48*mib)
				if t.Failed() {
					t.Fatalf("after %d transitions, the last: %s; release: %+v", n, last, report)
				}
			}
		})
	}
}

// syncBuffer collects output that is read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
