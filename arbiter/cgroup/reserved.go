package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reservedFor is how long the list of reserved processes is good: a runtime
// that starts is noticed that much later.
const reservedFor = 5 * time.Second

// guardians are the programs whose cgroups no rule ever matches: frozen or
// killed, they would take every container of the node with them. The kernel
// cuts a command name (comm) to 15 bytes.
var guardians = []struct{ comm, what string }{
	{"containerd", "the container runtime"},
	{"containerd-shim", "a container runtime's shim"},
	{"dockerd", "the container runtime"},
	{"crio", "the container runtime"},
	{"conmon", "a container runtime's monitor"},
	{"conmonrs", "a container runtime's monitor"},
	{"kubelet", "the kubelet"},
}

// reservation is where a process lives whose cgroup is never matched.
type reservation struct {
	path, why string
	below     bool // what is below is reserved too
}

// Reserved reports whether a cgroup must never be guarded, and why: it is, or
// holds, Arbiter's own, pid 1's, a container runtime's, a shim's or the
// kubelet's, or that of one of the given processes. A process in the root
// cgroup reserves only the root.
func (s *FS) Reserved(path string, pids ...int) (why string, reserved bool) {
	if path == "/" {
		return "it is the root cgroup", true
	}
	all := s.reservations(time.Now())
	for _, pid := range pids {
		all = s.reserve(all, pid, fmt.Sprintf("process %d, which asks", pid), false)
	}
	for _, r := range all {
		if r.path != "/" && (within(r.path, path) || r.below && within(path, r.path)) {
			return "it holds " + r.why, true
		}
	}
	return "", false
}

// reservations lists the reserved processes, at most reservedFor old.
func (s *FS) reservations(now time.Time) []reservation {
	s.reservedMu.Lock()
	defer s.reservedMu.Unlock()
	if now.Sub(s.reservedAt) < reservedFor {
		return s.reserved
	}
	all := s.reserve(nil, os.Getpid(), "Arbiter itself", true)
	all = s.reserve(all, 1, "the node's first process", false)
	for pid, what := range s.guardianPids() {
		all = s.reserve(all, pid, what, false)
	}
	s.reserved, s.reservedAt = slices.Clip(all), now
	return s.reserved
}

// reserve adds the cgroup of a process, unless it is gone.
func (s *FS) reserve(all []reservation, pid int, why string, below bool) []reservation {
	m, err := readMembership(s.proc, pid)
	if err != nil {
		return all
	}
	path := m.memory
	if s.version == 2 {
		path = m.unified
	}
	return append(all, reservation{path, why, below})
}

// guardianPids finds runtimes and kubelets by name among the processes of the
// node's own pid namespace: a process inside a container that calls itself
// kubelet is none.
func (s *FS) guardianPids() map[int]string {
	entries, err := os.ReadDir(s.proc)
	if err != nil {
		return nil
	}
	host, _ := os.Readlink(filepath.Join(s.proc, "1/ns/pid"))
	found := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(s.proc, e.Name(), "comm"))
		if err != nil {
			continue
		}
		for _, g := range guardians {
			if strings.TrimSuffix(string(comm), "\n") != g.comm {
				continue
			}
			ns, _ := os.Readlink(filepath.Join(s.proc, e.Name(), "ns/pid"))
			if ns == host {
				found[pid] = g.what
			}
		}
	}
	return found
}
