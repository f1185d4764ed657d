package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// short bounds calls that a kubelet expects to come back at once.
const short = 30 * time.Second

func (n *node) call(within time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) hasImage(ctx context.Context, name string) error {
	rsp, err := runtime.NewImageServiceClient(n.conn).ImageStatus(ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: name}})
	if err == nil && rsp.GetImage() == nil {
		err = fmt.Errorf("no image %s", name)
	}
	return err
}

// A pod is a sandbox on the node.
type pod struct {
	n      *node
	id     string
	config *runtime.PodSandboxConfig
	cgroup string // relative to the mount
}

type podOptions struct {
	name, namespace     string
	labels, annotations map[string]string
	limit               int64 // of the pod's cgroup; 0: none
	sharePids           bool  // shareProcessNamespace
}

// namespaces has the host's network, for which no CNI is needed.
func (o podOptions) namespaces() *runtime.NamespaceOption {
	ns := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_CONTAINER}
	if o.sharePids {
		ns.Pid = runtime.NamespaceMode_POD
	}
	return ns
}

// runPod makes a pod with the host's network in a burstable pod's cgroup.
func (n *node) runPod(o podOptions) *pod {
	n.t.Helper()
	p, err := n.tryRunPod(o)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *node) tryRunPod(o podOptions) (*pod, error) {
	uid := strings.ToLower(rand.Text()[:12])
	if o.namespace == "" {
		o.namespace = "shop"
	}
	cgroup := path.Join("/", n.name, "kubepods/burstable/pod"+uid)
	if o.limit > 0 {
		limit(n.t, cgroup, o.limit)
	}
	p := &pod{n: n, cgroup: cgroup, config: &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: o.name, Uid: uid, Namespace: o.namespace},
		LogDirectory: n.path("logs"),
		DnsConfig:    &runtime.DNSConfig{Servers: []string{"127.0.0.1"}}, // else the host's file is copied
		Labels:       o.labels,
		Annotations:  o.annotations,
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    cgroup,
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: o.namespaces()},
		},
	}}
	rsp, err := n.cri.RunPodSandbox(n.call(time.Minute), &runtime.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return nil, fmt.Errorf("run pod %s: %w", o.name, err)
	}
	p.id = rsp.GetPodSandboxId()
	return p, nil
}

// A container is one of a pod.
type container struct {
	p    *pod
	id   string
	name string
}

type containerOptions struct {
	name    string
	image   string // leakImage
	limit   int64  // 0: none
	args    []string
	attempt uint32
}

// run creates and starts a container.
func (p *pod) run(o containerOptions) *container {
	p.n.t.Helper()
	c := p.create(o)
	if err := c.start(); err != nil {
		p.n.t.Fatal(err)
	}
	return c
}

func (p *pod) create(o containerOptions) *container {
	p.n.t.Helper()
	c, err := p.tryCreate(o)
	if err != nil {
		p.n.t.Fatal(err)
	}
	return c
}

func (p *pod) tryCreate(o containerOptions) (*container, error) {
	if o.image == "" {
		o.image = leakImage
	}
	rsp, err := p.n.cri.CreateContainer(p.n.call(time.Minute), &runtime.CreateContainerRequest{
		PodSandboxId:  p.id,
		SandboxConfig: p.config,
		Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: o.name, Attempt: o.attempt},
			Image:    &runtime.ImageSpec{Image: o.image, UserSpecifiedImage: o.image},
			Args:     o.args,
			LogPath:  o.name + ".log",
			Annotations: map[string]string{
				"io.kubernetes.container.restartCount": fmt.Sprint(o.attempt),
			},
			Linux: &runtime.LinuxContainerConfig{
				Resources: &runtime.LinuxContainerResources{MemoryLimitInBytes: o.limit},
				SecurityContext: &runtime.LinuxContainerSecurityContext{
					NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
				},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", o.name, err)
	}
	return &container{p: p, id: rsp.GetContainerId(), name: o.name}, nil
}

func (c *container) start() error {
	_, err := c.p.n.cri.StartContainer(c.p.n.call(time.Minute), &runtime.StartContainerRequest{ContainerId: c.id})
	return err
}

func (c *container) cgroup() string { return c.p.cgroup + "/" + c.id }

func (c *container) status(t testing.TB) *runtime.ContainerStatus {
	t.Helper()
	rsp, err := c.p.n.cri.ContainerStatus(c.p.n.call(short), &runtime.ContainerStatusRequest{ContainerId: c.id})
	if err != nil {
		t.Fatal(err)
	}
	return rsp.GetStatus()
}

// ended waits for the container's end and gives its reason and exit code.
func (c *container) ended(t testing.TB) (reason string, code int32) {
	t.Helper()
	eventually(t, time.Minute, "container "+c.name+" has ended", func() error {
		st := c.status(t)
		reason, code = st.GetReason(), st.GetExitCode()
		if st.GetState() != runtime.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("state %v", st.GetState())
		}
		return nil
	})
	return reason, code
}

func (c *container) stop(grace time.Duration) error {
	_, err := c.p.n.cri.StopContainer(c.p.n.call(grace+short), &runtime.StopContainerRequest{ContainerId: c.id, Timeout: int64(grace / time.Second)})
	return err
}

func (c *container) remove() error {
	_, err := c.p.n.cri.RemoveContainer(c.p.n.call(short), &runtime.RemoveContainerRequest{ContainerId: c.id})
	return err
}

// update sets another limit, as an in-place resize does.
func (c *container) update(limit int64) error {
	_, err := c.p.n.cri.UpdateContainerResources(c.p.n.call(short), &runtime.UpdateContainerResourcesRequest{
		ContainerId: c.id,
		Linux:       &runtime.LinuxContainerResources{MemoryLimitInBytes: limit},
	})
	return err
}

func (c *container) exec(args ...string) (*runtime.ExecSyncResponse, error) {
	return c.p.n.cri.ExecSync(c.p.n.call(short), &runtime.ExecSyncRequest{ContainerId: c.id, Cmd: args, Timeout: 10})
}
