package cgroup

import (
	"context"
	"errors"
)

// Mount is where the memory hierarchy is mounted.
func (s *FS) Mount() string { return s.mounts.memory }

// Exists reports whether a directory of the memory hierarchy exists.
func (s *FS) Exists(path string) bool {
	d, err := openDir(s.mounts.memory, path)
	if err != nil {
		return false
	}
	d.close()
	return true
}

// A guardDropper is a cgroup whose guard hides its tasks from the node's own
// out-of-memory killer: v2's scores do, v1's flag does not.
type guardDropper interface {
	// dropGuard lets go of the guard until guards are allowed again.
	dropGuard(ctx context.Context) error
}

// DropGuards lets go of every guard that hides tasks from the node's own
// out-of-memory killer, and puts up none until AllowGuards.
func (s *FS) DropGuards(ctx context.Context) error {
	s.noGuards.Store(true)
	s.mu.Lock()
	var open []guardDropper
	for _, c := range s.cgroups {
		if g, ok := c.(guardDropper); ok {
			open = append(open, g)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, g := range open {
		errs = append(errs, ignoreGone(g.dropGuard(ctx)))
	}
	return errors.Join(errs...)
}

// AllowGuards ends DropGuards.
func (s *FS) AllowGuards() { s.noGuards.Store(false) }
