package cri

import (
	"fmt"
	"path"
	"strings"
)

// Quality-of-service classes as the kubelet derives them and as it names the
// levels of its cgroup tree. A guaranteed pod has no level of its own.
const (
	Guaranteed = "guaranteed"
	Burstable  = "burstable"
	BestEffort = "besteffort"
)

// A Place is what a memory cgroup's path tells by itself, without asking any
// runtime. Fields that it does not tell are empty.
type Place struct {
	QoS         string // of the pod
	PodUID      string
	PodCgroup   string // the pod's own cgroup, which holds its containers
	ContainerID string // 64 hexadecimal digits
	Cgroup      string // the container's cgroup: the path, or an ancestor of it
}

// ParsePlace reads a path relative to the hierarchy's mount. It knows
//
//	/kubepods/burstable/podUID/ID                                     kubelet, cgroupfs driver
//	/kubepods.slice/kubepods-burstable.slice/
//	    kubepods-burstable-podUID.slice/cri-containerd-ID.scope       kubelet, systemd driver ("-" in UID is "_")
//	/docker/ID, /system.slice/docker-ID.scope                         docker, nerdctl
//	/machine.slice/libpod-ID.scope, /libpod_parent/libpod-ID          podman
//
// below any prefix (a node in a container, a user's slice). Where containers
// are nested the innermost one counts.
func ParsePlace(p string) Place {
	var at Place
	inKube := false
	rest := strings.TrimPrefix(p, "/")
	for end := len(p) - len(rest); rest != ""; {
		name, tail, _ := strings.Cut(rest, "/")
		end += len(name)
		if uid, ok := podUID(name); ok && inKube {
			at.PodUID, at.PodCgroup = uid, p[:end]
			at.ContainerID, at.Cgroup = "", ""
		} else if qos, ok := kubeLevel(name, inKube); ok {
			at, inKube = Place{QoS: qos}, true
		} else if id, ok := containerID(name); ok {
			at.ContainerID, at.Cgroup = id, p[:end]
		}
		end++ // the slash
		rest = tail
	}
	if at.PodUID == "" {
		at.QoS = ""
	}
	return at
}

// Container is the identity that the place alone gives.
func (at Place) Container() Container {
	return Container{
		ID:     at.ContainerID,
		Cgroup: at.Cgroup,
		Pod:    Pod{UID: at.PodUID, QoS: at.QoS, Cgroup: at.PodCgroup},
	}
}

// kubeLevel recognizes the levels above pods: "kubepods", "burstable", and
// with the systemd driver "PREFIX-kubepods-burstable.slice".
func kubeLevel(name string, inKube bool) (qos string, ok bool) {
	if inKube && (name == Burstable || name == BestEffort) {
		return name, true
	}
	base := strings.TrimSuffix(name, ".slice")
	switch {
	case base == "kubepods" || strings.HasSuffix(base, "-kubepods"):
		return Guaranteed, true
	case base == name:
		return "", false
	case base == "kubepods-"+Burstable || strings.HasSuffix(base, "-kubepods-"+Burstable):
		return Burstable, true
	case base == "kubepods-"+BestEffort || strings.HasSuffix(base, "-kubepods-"+BestEffort):
		return BestEffort, true
	}
	return "", false
}

// podUID recognizes "podUID" and "kubepods-burstable-podUID.slice". In a slice
// a dash means a level, so that the kubelet writes the UID's as underscores.
func podUID(name string) (uid string, ok bool) {
	if base, isSlice := strings.CutSuffix(name, ".slice"); isSlice {
		i := strings.LastIndex(base, "-pod")
		if i < 0 {
			return "", false
		}
		uid = strings.ReplaceAll(base[i+len("-pod"):], "_", "-")
		return uid, uid != ""
	}
	uid, ok = strings.CutPrefix(name, "pod")
	return uid, ok && uid != ""
}

// containerID recognizes "ID", "PREFIX-ID" and "PREFIX-ID.scope". Podman's and
// CRI-O's monitors have scopes named by the container, but are not in it.
func containerID(name string) (id string, ok bool) {
	base := strings.TrimSuffix(name, ".scope")
	i := strings.LastIndexByte(base, '-')
	if strings.HasSuffix(base[:i+1], "conmon-") {
		return "", false
	}
	id = base[i+1:]
	return id, isID(id)
}

func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// SpecCgroup turns the linux.cgroupsPath of a runtime bundle into a path
// relative to the hierarchy's mount. "SLICE:PREFIX:NAME" is how the systemd
// driver is asked for the scope PREFIX-NAME.scope; systemd nests a slice below
// every slice that its dashes name. A relative path depends on the runtime's
// own cgroup, which only /proc/PID/cgroup tells: an error here.
func SpecCgroup(cgroupsPath string) (string, error) {
	if strings.HasPrefix(cgroupsPath, "/") {
		return path.Clean(cgroupsPath), nil
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		return "", fmt.Errorf("cgroup path %q: neither absolute nor SLICE:PREFIX:NAME", cgroupsPath)
	}
	slice, prefix, name := parts[0], parts[1], parts[2]
	if slice == "" {
		slice = "system.slice"
	}
	dir, err := expandSlice(slice)
	if err != nil {
		return "", fmt.Errorf("cgroup path %q: %w", cgroupsPath, err)
	}
	unit := name
	if !strings.HasSuffix(name, ".slice") {
		unit = prefix + "-" + name + ".scope"
	}
	if name == "" || strings.Contains(unit, "/") {
		return "", fmt.Errorf("cgroup path %q: no unit name", cgroupsPath)
	}
	return path.Join(dir, unit), nil
}

// expandSlice is the directory of a slice: "a-b.slice" is /a.slice/a-b.slice,
// and "-.slice" is the root.
func expandSlice(slice string) (string, error) {
	base, ok := strings.CutSuffix(slice, ".slice")
	if !ok || base == "" || strings.Contains(slice, "/") {
		return "", fmt.Errorf("%q is not a slice", slice)
	}
	if base == "-" {
		return "/", nil
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(base, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not a slice", slice)
		}
		dir = path.Join(dir, prefix+part+".slice")
		prefix += part + "-"
	}
	return dir, nil
}

// ProcCgroup finds the memory cgroup in the contents of /proc/PID/cgroup: the
// line of the memory controller on v1, else the unified line "0::PATH". The
// path is as the reader's cgroup namespace shows it. Empty if neither is
// there, or if it lies outside that namespace ("/../...").
//
//	9:memory:/kubepods/burstable/podUID/ID
//	0::/kubepods/burstable/podUID/ID
func ProcCgroup(contents string) string {
	unified := ""
	for line := range strings.Lines(contents) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, p, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "/..") {
			continue
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if c == "memory" {
				return p
			}
		}
		if controllers == "" {
			unified = p
		}
	}
	return unified
}
