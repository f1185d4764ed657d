package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// An FS is the cgroup file system of one host: the memory hierarchy and
// whatever can freeze.
type FS struct {
	// OnChange is called after each recorded transition, with its stage and
	// the directory's path: crash tests end the process exactly there. It is
	// set before anything else is called, or never.
	OnChange func(stage, path string)

	mounts  mounts
	version int
	proc    string // a mounted procfs
	log     hclog.Logger
	watch   *watch
	handle  func(Event)

	// MaxGuarded bounds how many limits are guarded by oom_score_adj at once
	// (version 2); 0 is no bound. It is set before anything else is called.
	MaxGuarded int

	noGuards atomic.Bool  // DropGuards is in force
	guards   atomic.Int64 // version 2 limits that are guarded now
	sampler  *sampler

	// flags is held while an out-of-memory flag and the record that owns it
	// are looked at or changed together.
	flags sync.Mutex

	background background

	reservedMu sync.Mutex
	reserved   []reservation
	reservedAt time.Time

	mu      sync.Mutex
	nodes   map[string]*node  // open directories by path (version 1)
	levels  map[string]*level // open directories by path (version 2)
	cgroups map[string]Cgroup // what Get gave out, by path
}

// Open finds the cgroup hierarchies mounted at root or below it: version 1
// where its memory controller is mounted, else version 2.
func Open(root string, log hclog.Logger) (*FS, error) {
	m, err := findMounts(root)
	if err != nil {
		return nil, fmt.Errorf("open cgroups at %s: %w", root, err)
	}
	s := &FS{mounts: m, proc: "/proc", log: log, nodes: map[string]*node{}, levels: map[string]*level{}, cgroups: map[string]Cgroup{}, sampler: newSampler()}
	switch {
	case m.memory != "":
		s.version = 1
	case m.unified != "":
		s.version = 2
		s.mounts.memory = m.unified
	default:
		return nil, fmt.Errorf("open cgroups at %s: no memory hierarchy is mounted there: %w", root, ErrNotSupported)
	}
	if s.watch, err = newWatch(log); err != nil {
		return nil, fmt.Errorf("open cgroups at %s: %w", root, err)
	}
	return s, nil
}

// Version is 1 or 2: the cgroup version of the memory controller.
func (s *FS) Version() int { return s.version }

// Handle sets the one receiver of events. It is called from the watching
// goroutine and must not block. Set it before Run.
func (s *FS) Handle(f func(Event)) { s.handle = f }

// Run watches every armed cgroup until ctx is done: one goroutine and one
// epoll instance, however many there are.
func (s *FS) Run(ctx context.Context) error {
	var sampling sync.WaitGroup
	defer sampling.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sampling.Go(func() { s.sampler.run(ctx) })
	return s.watch.run(ctx)
}

// Close closes every cgroup, which disarms those that are armed.
func (s *FS) Close() error {
	s.mu.Lock()
	var open []Cgroup
	for _, c := range s.cgroups {
		open = append(open, c)
	}
	s.mu.Unlock()
	var errs []error
	for _, c := range open {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.watch.close())...)
}

// Get opens the cgroup at path, relative to the memory hierarchy's mount. As
// long as it is open the same directory gives the same Cgroup; a new directory
// at the same path gives a new one.
func (s *FS) Get(path string) (Cgroup, error) {
	path = filepath.Clean("/" + path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.cgroups[path]; ok && s.sameDir(c) {
		return c, nil
	}
	c, err := s.newCgroup(path)
	if err != nil {
		return nil, err
	}
	s.cgroups[path] = c
	return c, nil
}

func (s *FS) newCgroup(path string) (Cgroup, error) {
	if s.version == 2 {
		return newV2(s, path)
	}
	return newV1(s, path)
}

// openChain opens p and every ancestor below the root, from the inside out. The
// root has no limit: it is opened only where it is p itself.
func openChain[L any](p string, open func(string) (L, error), shut func(L)) ([]L, error) {
	var chain []L
	for q := p; q != "/" || q == p; q = path.Dir(q) {
		l, err := open(q)
		if err != nil {
			for _, l := range chain {
				shut(l)
			}
			return nil, err
		}
		chain = append(chain, l)
		if q == "/" {
			break
		}
	}
	return chain, nil
}

// sameDir reports whether c's directory still is what its path leads to.
func (s *FS) sameDir(c Cgroup) bool {
	d, err := openDir(s.mounts.memory, c.Path())
	if err != nil {
		return false
	}
	defer d.close()
	return d.ino == c.ID()
}

// forget takes a closed Cgroup off the books. s.mu is not held.
func (s *FS) forget(c Cgroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cgroups[c.Path()] == c {
		delete(s.cgroups, c.Path())
	}
}

// emit hands an event to the receiver. Only the watching goroutine calls it.
func (s *FS) emit(e Event) {
	if s.handle != nil {
		s.handle(e)
	}
}

// changed tells OnChange and the log of a transition.
func (s *FS) changed(stage, path string) {
	s.log.Debug("cgroup changed", "stage", stage, "cgroup", path)
	if s.OnChange != nil {
		s.OnChange(stage, path)
	}
}
