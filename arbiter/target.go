package arbiter

import (
	"fmt"
	"path"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/api/server"
	"github.com/arbiterd/arbiter/cri"
)

// findCase is the one open case that an id or a part of it names.
func (e *Engine) findCase(part string) (*Case, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []*Case
	for id, c := range e.cases {
		if id == part {
			return c, nil
		}
		if part != "" && strings.Contains(id, part) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: no open case %q (closed ones are listed by `arbiterctl cases`)", server.ErrNotFound, part)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %q names %d open cases; give more of the id", server.ErrConflict, part, len(found))
}

// adopt makes a container that an operator named by its cgroup, and that no
// source has reported, one of the engine's own. e.mu is held.
func (e *Engine) adopt(ct *container) *container {
	if known := e.containers[ct.id.Cgroup]; known != nil {
		return known
	}
	e.containers[ct.id.Cgroup] = ct
	return ct
}

// target finds a container by namespace/pod/container, by its id or an
// unambiguous start of it, or by its cgroup.
func (e *Engine) target(name string) (*container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	cg := path.Clean("/" + strings.TrimPrefix(name, e.fs.Mount()))
	if ct := e.containers[cg]; ct != nil && name != "" {
		return ct, nil
	}
	var found []*container
	for _, ct := range e.containers {
		if names(ct.id, name) {
			found = append(found, ct)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %q names %d containers; give namespace/pod/container or the cgroup", server.ErrConflict, name, len(found))
	case strings.HasPrefix(name, "/") && e.fs.Exists(cg):
		return newContainer(cri.Container{Cgroup: cg, Source: "operator"}), nil
	}
	return nil, fmt.Errorf("%w: no container %q (namespace/pod/container, a container id, or a cgroup such as /system.slice/x.service)", server.ErrNotFound, name)
}

// names reports whether an operator may mean c by name.
func names(c cri.Container, name string) bool {
	if name == "" {
		return false
	}
	if c.String() == name || c.Pod.Name != "" && c.Pod.Namespace+"/"+c.Pod.Name == name {
		return true
	}
	return len(name) >= 8 && c.ID != "" && strings.HasPrefix(c.ID, name)
}
