// Package cgroupfs is the source of containers for which there is no runtime
// to ask: systemd services, docker and podman containers, any cgroup that a
// glob of the configuration names.
//
// It follows the memory hierarchy with inotify: mkdir and rmdir of a cgroup
// are events of the directory above it, on v1 and on v2. Every directory below
// which a glob could match is watched, so nothing polls, and a container
// manager that starts after the daemon is seen when it makes its first cgroup.
// The names of docker, podman and the kubelet tell container and pod ids; a
// container's name, image and labels only a runtime knows.
package cgroupfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cri"
)

// A Source reports the cgroups below a root that match one of its patterns.
type Source struct {
	root     string // the mount of the memory hierarchy
	patterns []string
}

// New makes a source for the memory hierarchy mounted at root. Patterns are
// relative to it and start with a slash; `**` crosses levels.
func New(root string, patterns []string) *Source {
	return &Source{root: root, patterns: patterns}
}

// Name is "cgroupfs".
func (*Source) Name() string { return "cgroupfs" }

// retry is the pause before a hierarchy that is not there, or that went away
// under the watches, is tried again.
const retry = 2 * time.Second

// Run reports matching cgroups until ctx is done, which is no error. It starts
// before its hierarchy is mounted and survives a remount; it returns early
// only for a pattern that cannot be read.
func (s *Source) Run(ctx context.Context, emit func(cri.Event), health func(error)) error {
	var ps patterns
	for _, text := range s.patterns {
		p, err := parsePattern(text)
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	w := &watcher{root: s.root, patterns: ps, emit: emit, known: map[string]known{}}
	for {
		err := w.follow(ctx, health)
		if ctx.Err() != nil {
			return nil
		}
		health(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// A watcher is what Run keeps between attempts: the cgroups that it reported,
// by path.
type watcher struct {
	root     string
	patterns patterns
	emit     func(cri.Event)
	known    map[string]known

	in   *inotify
	seen map[string]bool // during a scan: known cgroups found again
}

// known is a cgroup that was reported. A path that is made anew has another
// inode, and is another cgroup.
type known struct {
	ino   uint64
	limit int32 // the watch on its limit; 0: none
}

// follow watches with one inotify descriptor until it fails or ctx is done.
func (w *watcher) follow(ctx context.Context, health func(error)) error {
	in, err := newInotify()
	if err != nil {
		return err
	}
	w.in = in
	defer in.Close()
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()

	for rel, k := range w.known { // the watches went with their descriptor
		w.known[rel] = known{ino: k.ino, limit: in.WatchLimit(w.root, rel)}
	}
	if err := w.scan(ctx); err != nil {
		return err
	}
	health(nil)
	for {
		events, err := in.Read()
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := w.handle(ctx, ev); err != nil {
				return err
			}
		}
	}
}

// scan reports everything that exists and takes back what is gone.
func (w *watcher) scan(ctx context.Context) error {
	w.seen = map[string]bool{}
	if err := w.visit(ctx, "/"); err != nil {
		return fmt.Errorf("scan %s: %w", w.root, err)
	}
	for _, rel := range w.sortedKnown() {
		if !w.seen[rel] {
			w.gone(rel)
		}
	}
	w.seen = nil
	w.emit(cri.Event{Kind: cri.Synced})
	return nil
}

func (w *watcher) handle(ctx context.Context, ev event) error {
	if ev.mask&unix.IN_Q_OVERFLOW != 0 {
		return w.scan(ctx)
	}
	if ev.dir == "/" && ev.mask&(unix.IN_UNMOUNT|unix.IN_IGNORED) != 0 {
		return errors.New("the hierarchy was unmounted")
	}
	if ev.limit {
		w.limitWritten(ev.dir)
		return nil
	}
	if ev.name == "" || ev.mask&unix.IN_ISDIR == 0 {
		return nil
	}
	rel := path.Join(ev.dir, ev.name)
	if ev.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
		return w.visit(ctx, rel)
	}
	w.sweep(rel)
	return nil
}

// limitWritten tells that a container has another limit. A runtime makes the
// cgroup first and limits it then, so that a new container is worth a second
// look: before its limit is there nothing can be guarded.
func (w *watcher) limitWritten(rel string) {
	c, ok := container(rel)
	if _, told := w.known[rel]; told && ok {
		w.emit(cri.Event{Kind: cri.Updated, Container: c})
	}
}

// sweep takes back what was reported at or below rel and is not there any
// more: rmdir leaves nothing below, but v1 allows to rename a cgroup. The
// removal of an older cgroup may be read after its successor of that name was
// found, so the file system is believed, not the event.
func (w *watcher) sweep(rel string) {
	for _, k := range w.sortedKnown() {
		if (k == rel || strings.HasPrefix(k, rel+"/")) && w.inode(k) != w.known[k].ino {
			w.gone(k)
		}
	}
}

// visit reports rel if it matches, and watches and visits what is below if
// that could. The watch comes before the listing: what is made in between is
// seen twice rather than never. Whatever vanishes meanwhile is passed over.
func (w *watcher) visit(ctx context.Context, rel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	match, below := w.patterns.match(rel)
	if match {
		w.found(rel)
	}
	if !below {
		return nil
	}
	if err := w.in.WatchDir(w.root, rel); err != nil {
		return vanished(rel, err)
	}
	entries, err := os.ReadDir(path.Join(w.root, rel))
	if err != nil {
		return vanished(rel, err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := w.visit(ctx, path.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// vanished excuses a cgroup that went away while it was looked at; the root
// has no excuse.
func vanished(rel string, err error) error {
	if rel != "/" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)) {
		return nil
	}
	return err
}

func (w *watcher) found(rel string) {
	ino := w.inode(rel)
	if ino == 0 {
		return
	}
	c, ok := container(rel)
	if !ok {
		return
	}
	if w.seen != nil {
		w.seen[rel] = true
	}
	if old, ok := w.known[rel]; ok {
		if old.ino == ino {
			return
		}
		w.gone(rel)
	}
	w.known[rel] = known{ino: ino, limit: w.in.WatchLimit(w.root, rel)}
	w.emit(cri.Event{Kind: cri.Added, Container: c})
}

func (w *watcher) gone(rel string) {
	w.in.Unwatch(w.known[rel].limit)
	delete(w.known, rel)
	if c, ok := container(rel); ok {
		w.emit(cri.Event{Kind: cri.Removed, Container: c})
	}
}

// inode is 0 for a cgroup that does not exist.
func (w *watcher) inode(rel string) uint64 {
	var st unix.Stat_t
	if err := unix.Lstat(path.Join(w.root, rel), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0
	}
	return st.Ino
}

func (w *watcher) sortedKnown() []string {
	paths := make([]string, 0, len(w.known))
	for rel := range w.known {
		paths = append(paths, rel)
	}
	slices.Sort(paths)
	return paths
}

// container is the identity that the path tells. A broad glob ("/kubepods/**",
// "/docker/**") also matches what is no container: the pod's level, and what a
// container makes below itself. A cgroup that no container manager named is
// called by its last component, which is the unit's name under systemd.
func container(rel string) (c cri.Container, ok bool) {
	at := cri.ParsePlace(rel)
	if at.ContainerID == "" && at.PodUID == "" {
		return cri.Container{Name: path.Base(rel), Cgroup: rel, Source: "cgroupfs"}, true
	}
	c = at.Container()
	c.Source = "cgroupfs"
	return c, at.Cgroup == rel
}
