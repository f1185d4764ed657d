// Package cri holds the identities of containers and pods, as the sources
// (containerd, NRI, plain cgroups) report them and as policies match them.
//
// It uses the standard library alone, so that the policy language and the
// command line can speak of containers without linking a runtime's client.
package cri

// A Pod is what Kubernetes calls a pod. All fields are empty for a container
// that no pod holds (a systemd service, a plain docker or podman container).
type Pod struct {
	ID          string            `json:"id,omitempty"` // the runtime's id of the pod's sandbox
	UID         string            `json:"uid,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Name        string            `json:"name,omitempty"`
	QoS         string            `json:"qos,omitempty"` // guaranteed, burstable or besteffort
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      string            `json:"cgroup,omitempty"` // like Container.Cgroup
}

// A Container is one container as a source knows it.
type Container struct {
	ID           string `json:"id,omitempty"`
	Name         string `json:"name,omitempty"`
	Image        string `json:"image,omitempty"`
	RestartCount int    `json:"restartCount,omitempty"`
	Pid          int    `json:"pid,omitempty"` // its first process in the host's pid namespace; 0 if unknown
	Pod          Pod    `json:"pod,omitzero"`

	// Cgroup is the memory cgroup's path relative to the hierarchy's mount,
	// with a leading slash: "/kubepods/burstable/podUID/ID". It is the one
	// identity that every container has and that the engine keys by.
	Cgroup string `json:"cgroup"`

	// Source names who reported it: "containerd", "nri" or "cgroupfs".
	Source string `json:"source,omitempty"`
}

// String names the container towards users: namespace/pod/container where a
// pod is known, else its cgroup.
func (c Container) String() string {
	if c.Pod.Name == "" {
		return c.Cgroup
	}
	return c.Pod.Namespace + "/" + c.Pod.Name + "/" + c.Name
}

// A Command runs inside a container, beside its own programs.
type Command struct {
	Argv  []string
	Env   []string // NAME=value, over the container's own environment
	Stdin []byte
}

// EventKind tells what happened to a container.
type EventKind uint8

const (
	// Added says that the container exists: newly created, or seen for the
	// first time by this source. It may be repeated with a fuller identity.
	Added EventKind = iota
	// Updated says that its limits were changed through the runtime.
	Updated
	// Removed says that the container is gone or about to be removed.
	Removed
	// Synced says that the source has reported everything that exists. It
	// carries no container and comes after every full listing: at the source's
	// start, and again whenever it has found its peer anew.
	Synced
)

// An Event is one observation of a source.
type Event struct {
	Kind      EventKind
	Container Container

	// Done, if not nil, must be called once the event is dealt with: a
	// container that a source holds back before its first instruction (NRI's
	// StartContainer) starts then, guarded. The source waits for a bounded
	// time only; calling Done late or twice does no harm.
	Done func()
}
