package nri

import (
	"context"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/cri"
)

// guardWait is how long a container's start is held back for its guard. Arming
// takes well under a millisecond; the runtime's own limit is 2 s for all
// plugins together.
const guardWait = 500 * time.Millisecond

// A plugin implements the hooks. It outlives connections.
type plugin struct {
	cfg   Config
	queue *queue
	wait  time.Duration

	mu    sync.Mutex
	known map[string]cri.Container // by id: told to the engine and not taken back
}

func newPlugin(cfg Config) *plugin {
	return &plugin{cfg: cfg, queue: newQueue(), wait: guardWait, known: map[string]cri.Container{}}
}

// Synchronize is called after every connection, with all that exists.
func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	byID := map[string]*api.PodSandbox{}
	for _, pod := range pods {
		byID[pod.GetId()] = pod
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.known
	p.known = map[string]cri.Container{}
	var events []cri.Event
	for _, ctr := range containers {
		if st := ctr.GetState(); st != api.ContainerState_CONTAINER_RUNNING && st != api.ContainerState_CONTAINER_CREATED {
			continue
		}
		c, ok := p.identify(byID[ctr.GetPodSandboxId()], ctr)
		if !ok {
			continue
		}
		delete(before, c.ID)
		p.known[c.ID] = c
		events = append(events, cri.Event{Kind: cri.Added, Container: c})
	}
	for _, c := range before {
		events = append(events, cri.Event{Kind: cri.Removed, Container: c})
	}
	p.queue.push(append(events, cri.Event{Kind: cri.Synced})...)
	return nil, nil
}

// StartContainer holds the container back until its guard is armed. Updates
// of containers requested in here would deadlock the runtime.
func (p *plugin) StartContainer(ctx context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	c, ok := p.identify(pod, ctr)
	if !ok {
		p.cfg.Log.Warn("container starts without a memory cgroup that could be found", "container", ctr.GetName(), "pod", pod.GetName())
		return nil
	}
	p.mu.Lock()
	p.known[c.ID] = c
	p.mu.Unlock()
	done := make(chan struct{})
	p.queue.push(cri.Event{Kind: cri.Added, Container: c, Done: sync.OnceFunc(func() { close(done) })})

	timeout := time.NewTimer(p.wait)
	defer timeout.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-timeout.C:
		p.cfg.Log.Warn("container starts before its guard is armed", "container", c.String(), "elapsed", p.wait)
	}
	return nil
}

// PostUpdateContainer says that new limits have been written.
func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	if c, ok := p.identify(pod, ctr); ok {
		p.mu.Lock()
		p.known[c.ID] = c
		p.mu.Unlock()
		p.queue.push(cri.Event{Kind: cri.Updated, Container: c})
	}
	return nil
}

// StopContainer is called once the container has ended, for whatever reason.
func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) ([]*api.ContainerUpdate, error) {
	p.remove(ctr)
	return nil, nil
}

// RemoveContainer is called when the runtime forgets the container.
func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.remove(ctr)
	return nil
}

func (p *plugin) remove(ctr *api.Container) {
	p.mu.Lock()
	c, ok := p.known[ctr.GetId()]
	delete(p.known, ctr.GetId())
	p.mu.Unlock()
	if ok {
		p.queue.push(cri.Event{Kind: cri.Removed, Container: c})
	}
}

// identify is the container as the runtime describes it. It is not ok if its
// cgroup cannot be found: the runtime may have it in a virtual machine.
func (p *plugin) identify(pod *api.PodSandbox, ctr *api.Container) (c cri.Container, ok bool) {
	if ctr == nil {
		return c, false
	}
	c = cri.Container{
		ID:     ctr.GetId(),
		Name:   ctr.GetName(),
		Image:  ctr.GetImage().GetName(),
		Pid:    int(ctr.GetPid()),
		Source: "nri",
		Pod: cri.Pod{
			ID:          ctr.GetPodSandboxId(),
			UID:         pod.GetUid(),
			Namespace:   pod.GetNamespace(),
			Name:        pod.GetName(),
			Labels:      without(pod.GetLabels(), "io.cri-containerd.", "oci_runtime_type"),
			Annotations: without(pod.GetAnnotations(), "io.kubernetes.cri."),
		},
	}
	if n, err := strconv.Atoi(ctr.GetAnnotations()["io.kubernetes.container.restartCount"]); err == nil {
		c.RestartCount = n
	}
	c.Cgroup = p.cgroup(ctr)
	if c.Cgroup == "" {
		return c, false
	}
	at := cri.ParsePlace(c.Cgroup)
	c.Pod.QoS, c.Pod.Cgroup = at.QoS, at.PodCgroup
	if c.Pod.Cgroup == "" && pod.GetLinux().GetCgroupParent() != "" {
		c.Pod.Cgroup = path.Dir(c.Cgroup)
	}
	return c, true
}

// without leaves out what the runtime added for itself to what the pod has:
// keys that begin with one of the prefixes.
func without(pairs map[string]string, prefixes ...string) map[string]string {
	kept := map[string]string{}
	for k, v := range pairs {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			kept[k] = v
		}
	}
	return kept
}

// cgroup is what the runtime's specification asked for if it is there, else
// what the kernel says of the container's first process.
func (p *plugin) cgroup(ctr *api.Container) string {
	if rel, err := cri.SpecCgroup(ctr.GetLinux().GetCgroupsPath()); err == nil && p.exists(rel) {
		return rel
	}
	if ctr.GetPid() == 0 {
		return ""
	}
	b, err := os.ReadFile(path.Join(p.cfg.ProcRoot, strconv.Itoa(int(ctr.GetPid())), "cgroup"))
	if err != nil {
		return "" // it is gone
	}
	rel := cri.ProcCgroup(string(b))
	if at := cri.ParsePlace(rel); at.ContainerID == ctr.GetId() {
		rel = at.Cgroup
	}
	if !p.exists(rel) {
		return ""
	}
	return rel
}

// exists tells whether the hierarchy has this cgroup. Its root is no
// container's.
func (p *plugin) exists(rel string) bool {
	if rel == "" || rel == "/" {
		return false
	}
	st, err := os.Stat(path.Join(p.cfg.MemoryRoot, rel))
	return err == nil && st.IsDir()
}

// stubLog passes the stub's chatter on as debug messages.
type stubLog struct{ log hclog.Logger }

func (l stubLog) Debugf(_ context.Context, format string, args ...any) {
	l.log.Trace("nri stub", "message", hclog.Fmt(format, args...))
}

func (l stubLog) Infof(_ context.Context, format string, args ...any) {
	l.log.Debug("nri stub", "message", hclog.Fmt(format, args...))
}

func (l stubLog) Warnf(_ context.Context, format string, args ...any) {
	l.log.Warn("nri stub", "message", hclog.Fmt(format, args...))
}

func (l stubLog) Errorf(_ context.Context, format string, args ...any) {
	l.log.Warn("nri stub", "message", hclog.Fmt(format, args...))
}
