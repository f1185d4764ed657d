package nri

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/cri"
)

func testPlugin(t *testing.T, cgroups ...string) *plugin {
	t.Helper()
	root := t.TempDir()
	for _, c := range cgroups {
		if err := os.MkdirAll(filepath.Join(root, c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return newPlugin(Config{MemoryRoot: root, ProcRoot: t.TempDir(), Log: hclog.NewNullLogger()})
}

func ctr(id string, state api.ContainerState) *api.Container {
	return &api.Container{Id: id, Name: id, State: state, PodSandboxId: "p", Linux: &api.LinuxContainer{CgroupsPath: "/pods/" + id}}
}

var pod = &api.PodSandbox{
	Id: "p", Name: "pod", Namespace: "ns", Uid: "u",
	Labels: map[string]string{"team": "pay", "io.cri-containerd.kind": "sandbox"},
	Linux:  &api.LinuxPodSandbox{CgroupParent: "/pods"},
}

func (q *queue) take() (events []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, ev := range q.events {
		events = append(events, map[cri.EventKind]string{cri.Added: "+", cri.Removed: "-", cri.Updated: "~", cri.Synced: "synced"}[ev.Kind]+ev.Container.Cgroup)
	}
	q.events = nil
	return events
}

// TestSynchronize reconnects to a runtime whose containers have changed.
func TestSynchronize(t *testing.T) {
	t.Parallel()
	p := testPlugin(t, "/pods/a", "/pods/b", "/pods/c")
	pods := []*api.PodSandbox{pod}
	sync := func(want []string, cs ...*api.Container) {
		t.Helper()
		if updates, err := p.Synchronize(t.Context(), pods, cs); updates != nil || err != nil {
			t.Errorf("the plugin asks for %v, %v", updates, err)
		}
		if diff := cmp.Diff(want, p.queue.take()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	run, exited := api.ContainerState_CONTAINER_RUNNING, api.ContainerState_CONTAINER_STOPPED
	sync([]string{"+/pods/a", "+/pods/b", "synced"},
		ctr("a", run), ctr("b", api.ContainerState_CONTAINER_CREATED), ctr("c", exited), ctr("no-cgroup", run))
	sync([]string{"+/pods/b", "+/pods/c", "-/pods/a", "synced"}, ctr("b", run), ctr("c", run))
	want := cri.Container{ID: "b", Name: "b", Cgroup: "/pods/b", Source: "nri",
		Pod: cri.Pod{ID: "p", Name: "pod", Namespace: "ns", UID: "u", Cgroup: "/pods", Labels: map[string]string{"team": "pay"}, Annotations: map[string]string{}}}
	if diff := cmp.Diff(want, p.known["b"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for range 2 {
		if _, err := p.StopContainer(t.Context(), pod, ctr("b", exited)); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"-/pods/b"}, p.queue.take()); diff != "" {
		t.Errorf("stopped twice: -want +got:\n%s", diff)
	}
}

// TestStartContainer checks how long a start is held back.
func TestStartContainer(t *testing.T) {
	for name, tt := range map[string]struct {
		guarded bool
		cancel  time.Duration
		want    time.Duration
	}{
		"guard armed":      {guarded: true, cancel: time.Hour, want: 20 * time.Millisecond},
		"guard never":      {cancel: time.Hour, want: guardWait},
		"runtime gives up": {cancel: 100 * time.Millisecond, want: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := testPlugin(t, "/pods/a")
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					p.queue.deliver(ctx, func(ev cri.Event) {
						if tt.guarded {
							time.AfterFunc(20*time.Millisecond, ev.Done)
						}
					})
				})
				hook, cancel := context.WithTimeout(ctx, tt.cancel)
				defer cancel()
				start := time.Now()
				if err := p.StartContainer(hook, pod, ctr("a", api.ContainerState_CONTAINER_CREATED)); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d != tt.want {
					t.Errorf("held back for %v, want %v", d, tt.want)
				}
				stop()
				wg.Wait()
			})
		})
	}
}

// TestQueueOverflow has an engine that takes nothing: hooks return all the
// same, and the connection is to be made anew.
func TestQueueOverflow(t *testing.T) {
	t.Parallel()
	q := newQueue()
	for range maxQueued {
		q.push(cri.Event{})
	}
	select {
	case <-q.overflow():
		t.Error("overflow too early")
	default:
	}
	q.push(cri.Event{})
	select {
	case <-q.overflow():
	default:
		t.Error("dropped an event and did not say so")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {MemoryRoot: "/x", Index: "7"}, {MemoryRoot: "/x", Index: "100"}, {MemoryRoot: "/x", Index: "a0"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}
