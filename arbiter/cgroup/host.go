package cgroup

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// Mount is where the memory hierarchy is mounted.
func (s *FS) Mount() string { return s.mounts.memory }

// Missing tells in sentences what this host cannot give, whatever the container.
func (s *FS) Missing() []string {
	var out []string
	if s.version == 1 && s.mounts.freezer == "" && s.mounts.unified == "" {
		out = append(out, "no freezer is mounted: containers are stopped by SIGSTOP, which they can see and others can undo")
	}
	root, err := openDir(s.mounts.memory, "/")
	if err != nil {
		return append(out, "the memory hierarchy cannot be read: "+err.Error())
	}
	defer root.close()
	if s.version == 1 && !root.has(fileMemsw) {
		out = append(out, "swap accounting is off: a container can swap before it reaches its limit")
	}
	return out
}

// Lines are the report for people, a line for each cgroup.
func (r ReleaseReport) Lines() []string {
	var out []string
	for _, l := range []struct {
		what  string
		paths []string
	}{
		{"released", r.Released}, {"inherited flag cleared", r.Cleared},
		{"skipped, a live daemon owns it (--force releases it all the same)", r.Skipped},
	} {
		for _, p := range l.paths {
			out = append(out, p+": "+l.what)
		}
	}
	return append(out, r.Left...)
}

// Log tells what was released. What others own is none of our business there.
func (r ReleaseReport) Log(log hclog.Logger) {
	for _, p := range r.Released {
		log.Warn("released what a daemon that died had left", "cgroup", p)
	}
	for _, p := range r.Cleared {
		log.Warn("cleared an inherited out-of-memory flag", "cgroup", p)
	}
	for _, p := range r.Skipped {
		log.Info("left alone, another daemon owns it", "cgroup", p)
	}
	for _, why := range r.Left {
		log.Error("not released", "why", why)
	}
}

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
	// Side by side: one that is being killed keeps the others waiting.
	errs := make([]error, len(open))
	var all sync.WaitGroup
	for i, g := range open {
		all.Go(func() { errs[i] = ignoreGone(g.dropGuard(ctx)) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Guarding is how many limits are guarded by scores now, of MaxGuarded (v2).
func (s *FS) Guarding() int { return int(s.guards.Load()) }

// AllowGuards ends DropGuards.
func (s *FS) AllowGuards() { s.noGuards.Store(false) }
