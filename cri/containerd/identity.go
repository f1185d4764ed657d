package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strconv"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/arbiterd/arbiter/cri"
)

// What the CRI plugin writes on its containers.
const (
	kindLabel     = "io.cri-containerd.kind" // "sandbox" or "container"
	kindSandbox   = "sandbox"
	containerMeta = "io.cri-containerd.container.metadata"
	sandboxMeta   = "io.cri-containerd.sandbox.metadata"

	annotationSandboxID = "io.kubernetes.cri.sandbox-id"
	annotationNamespace = "io.kubernetes.cri.sandbox-namespace"
	annotationPodName   = "io.kubernetes.cri.sandbox-name"
	annotationPodUID    = "io.kubernetes.cri.sandbox-uid"
	annotationName      = "io.kubernetes.cri.container-name"
	annotationImage     = "io.kubernetes.cri.image-name"
)

// A record is a container as containerd stores it.
type record struct {
	namespace string
	*containersapi.Container
}

func (r record) key() key { return key{r.namespace, r.GetID()} }

func (r record) isSandbox() bool { return r.GetLabels()[kindLabel] == kindSandbox }

// spec is what matters here of the OCI runtime specification.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		CgroupsPath string `json:"cgroupsPath"`
	} `json:"linux"`
}

// criConfig is what matters of the CRI's configurations of pods and
// containers, which the CRI plugin stores as JSON in an extension.
type criConfig struct {
	Metadata struct {
		SandboxID string
		ImageName string
		Config    struct {
			Metadata struct {
				Name      string `json:"name"`
				UID       string `json:"uid"`
				Namespace string `json:"namespace"`
				Attempt   int    `json:"attempt"`
			} `json:"metadata"`
			Image struct {
				UserSpecifiedImage string `json:"user_specified_image"`
			} `json:"image"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
			Linux       struct {
				CgroupParent string `json:"cgroup_parent"`
			} `json:"linux"`
		}
	}
}

// identity is the container as its record describes it, without what only
// the host can tell: whether it runs, and where if the spec does not say.
func (r record) identity() (c cri.Container, err error) {
	var sp spec
	if err := json.Unmarshal(r.GetSpec().GetValue(), &sp); err != nil {
		return c, fmt.Errorf("container %s: spec: %w", r.GetID(), err)
	}
	c = cri.Container{ID: r.GetID(), Name: r.GetID(), Image: r.GetImage(), Source: "containerd"}
	if sp.Linux.CgroupsPath != "" {
		// A path that cannot be expanded is looked up by pid instead.
		c.Cgroup, _ = cri.SpecCgroup(sp.Linux.CgroupsPath)
	}
	ext, ok := r.GetExtensions()[containerMeta]
	if !ok {
		return c, nil
	}
	var cfg criConfig
	if err := json.Unmarshal(ext.GetValue(), &cfg); err != nil {
		return c, fmt.Errorf("container %s: CRI metadata: %w", r.GetID(), err)
	}
	c.Name = first(cfg.Metadata.Config.Metadata.Name, sp.Annotations[annotationName], c.Name)
	c.Image = first(cfg.Metadata.Config.Image.UserSpecifiedImage, cfg.Metadata.ImageName, sp.Annotations[annotationImage], c.Image)
	c.RestartCount = cfg.Metadata.Config.Metadata.Attempt
	c.Pod = cri.Pod{
		ID:        first(cfg.Metadata.SandboxID, sp.Annotations[annotationSandboxID]),
		UID:       sp.Annotations[annotationPodUID],
		Namespace: sp.Annotations[annotationNamespace],
		Name:      sp.Annotations[annotationPodName],
	}
	return c, nil
}

// pod is the pod as the record of its sandbox describes it.
func (r record) pod() (cri.Pod, error) {
	ext, ok := r.GetExtensions()[sandboxMeta]
	if !ok {
		return cri.Pod{}, fmt.Errorf("sandbox %s: no CRI metadata", r.GetID())
	}
	var cfg criConfig
	if err := json.Unmarshal(ext.GetValue(), &cfg); err != nil {
		return cri.Pod{}, fmt.Errorf("sandbox %s: CRI metadata: %w", r.GetID(), err)
	}
	conf := cfg.Metadata.Config
	p := cri.Pod{
		ID:          r.GetID(),
		UID:         conf.Metadata.UID,
		Namespace:   conf.Metadata.Namespace,
		Name:        conf.Metadata.Name,
		Labels:      conf.Labels,
		Annotations: conf.Annotations,
	}
	if conf.Linux.CgroupParent != "" {
		var sp spec
		if err := json.Unmarshal(r.GetSpec().GetValue(), &sp); err == nil {
			if own, err := cri.SpecCgroup(sp.Linux.CgroupsPath); err == nil {
				p.Cgroup = path.Dir(own)
			}
		}
	}
	return p, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// identify completes a record's identity with its pod and its cgroup. It is
// not ok for a sandbox, for what cannot be understood (logged), and for what
// does not run. Pid 0 is unknown.
func (s *Source) identify(ctx context.Context, r record, pid int) (c cri.Container, ok bool) {
	if r.Container == nil || r.isSandbox() {
		return c, false
	}
	c, err := r.identity()
	if err != nil {
		s.cfg.Log.Warn("container not understood", "container", r.GetID(), "error", err)
		return c, false
	}
	c.Pid = pid
	if !s.exists(c.Cgroup) {
		c.Cgroup = s.cgroupOf(pid, c.ID)
		if !s.exists(c.Cgroup) {
			return c, false
		}
	}
	if c.Pod.ID != "" {
		if p, ok := s.podOf(ctx, key{r.namespace, c.Pod.ID}); ok {
			c.Pod = p
		}
	}
	at := cri.ParsePlace(c.Cgroup)
	c.Pod.QoS = at.QoS
	if at.PodCgroup != "" {
		c.Pod.Cgroup = at.PodCgroup
	}
	return c, true
}

// cgroupOf asks the kernel where a process is. If it lives below the
// container's own cgroup, the path is cut there.
func (s *Source) cgroupOf(pid int, id string) string {
	if pid == 0 {
		return ""
	}
	b, err := os.ReadFile(path.Join(s.cfg.ProcRoot, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "" // it is gone
	}
	p := cri.ProcCgroup(string(b))
	if at := cri.ParsePlace(p); at.ContainerID == id {
		return at.Cgroup
	}
	return p
}

// keepPods replaces the known pods by those of a full listing.
func (s *Source) keepPods(records []record) {
	pods := map[key]cri.Pod{}
	for _, r := range records {
		if !r.isSandbox() {
			continue
		}
		p, err := r.pod()
		if err != nil {
			s.cfg.Log.Warn("pod not understood", "pod", r.GetID(), "error", err)
			continue
		}
		pods[r.key()] = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = pods
}

// podOf is a pod that a listing found, or that is asked for now.
func (s *Source) podOf(ctx context.Context, k key) (cri.Pod, bool) {
	s.mu.Lock()
	p, ok := s.pods[k]
	s.mu.Unlock()
	if ok {
		return p, true
	}
	r, err := s.get(ctx, k)
	if err != nil || r.Container == nil {
		return cri.Pod{}, false
	}
	p, err = r.pod()
	if err != nil {
		return cri.Pod{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[k] = p
	return p, true
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
