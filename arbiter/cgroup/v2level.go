package cgroup

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// The kernel files of the version 2 memory controller that are used here; see
// Documentation/admin-guide/cgroup-v2.rst. The local counts tell whose limit
// was hit: the other ones are summed over everything below.
const (
	fileMax         = "memory.max"
	fileHigh        = "memory.high"
	fileCurrent     = "memory.current"
	fileMemoryPeak  = "memory.peak" // since 5.19
	fileSwapMax     = "memory.swap.max"
	fileSwapCurrent = "memory.swap.current"
	fileOOMGroup    = "memory.oom.group" // since 4.19
	fileMemEvents   = "memory.events"
	fileLocalEvents = "memory.events.local" // since 5.2
	fileFreeze      = "cgroup.freeze"
	fileCgEvents    = "cgroup.events"
	fileKill        = "cgroup.kill" // since 5.14
)

// A level is one version 2 directory whose limit binds an armed container: its
// own, or an ancestor's, which the containers of a pod share. What follows the
// ledger is guarded by its mu, unless it says otherwise. A goroutine that
// holds one level's mu takes another's only if that lies further inside.
type level struct {
	ledger
	refs  int                   // containers that keep it open; FS.mu
	users atomic.Pointer[[]*v2] // the keys of stakes, for whoever must not wait
	owned atomic.Bool           // rec is not nil
	up    atomic.Bool           // the same as guarded
	work  worker

	maxField atomic.Pointer[Field] // a copy of the record's, for whoever must not wait

	stakes  map[*v2]*stake
	limit   policy.Limit // memory.max without what was lent
	lent    uint64       // bytes above limit
	soft    policy.Limit // memory.high as others set it
	high    policy.Limit // memory.high as it is
	owing   bool         // memory.max is above what was lent, since usage is
	guarded bool
	since   time.Time // when the guard was put up
	barred  time.Time // no guard before that
	cached  bool      // memory.high is lifted since page cache alone presses against it
	trail   trail
	marks   map[string]uint64 // usage of the children when last looked at
	scores  exemption

	seen     memoryEvents // of the watching goroutine
	lastOOM  time.Time    // of the watching goroutine
	counting bool         // of the watching goroutine
	hit      atomic.Int64 // when the limit was last hit, Unix nanoseconds
	firstOf  atomic.Int64 // when it was first hit in this row
	watched  int          // the descriptor in the watch, -1 for none
	quiet    bool         // it is out of the watch for a moment
	notes    []int32      // inotify
}

// stake is what one container asks of a level.
type stake struct {
	hold, always      bool
	borrowed, granted uint64
	slack             uint64 // room for the freezing itself, where scores cannot be had
}

func (s *stake) room() uint64 { return max(s.borrowed+s.granted, s.slack) }

// openLevel returns the level of path, opening it if need be. s.mu is held.
func (s *FS) openLevel(path string) (*level, error) {
	if l := s.levels[path]; l != nil && l.dir.alive() {
		l.refs++
		return l, nil
	}
	d, err := openDir(s.mounts.memory, path)
	if err != nil {
		return nil, err
	}
	d.keep(fileMax, fileHigh, fileCurrent, fileStat, fileLocalEvents, fileFreeze, fileCgEvents)
	l := &level{ledger: ledger{fs: s, dir: d}, refs: 1, stakes: map[*v2]*stake{}, watched: -1}
	l.scores.reasons = map[*level]bool{}
	l.users.Store(&[]*v2{})
	s.levels[path] = l
	return l, nil
}

// closeLevel gives a level back. s.mu is held.
func (s *FS) closeLevel(l *level) {
	if l.refs--; l.refs > 0 {
		return
	}
	if s.levels[l.dir.path] == l {
		delete(s.levels, l.dir.path)
	}
	l.dir.close()
}

// family is l and the levels below it that have a record of their own, from
// the outside in: together they are everything that l's limit binds.
func (l *level) family() []*level {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	all := []*level{l}
	for path, n := range l.fs.levels {
		if n != l && n.owned.Load() && within(path, l.dir.path) {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *level) int { return strings.Compare(a.dir.path, b.dir.path) })
	return all
}

// join makes c a user of the level. With hold, the limit is armed.
func (l *level) join(c *v2, hold, always bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stakes[c]
	if s == nil {
		s = &stake{}
		l.stakes[c] = s
	}
	s.hold, s.always = hold, always
	l.publish()
	if l.rec == nil {
		if err := l.look(); err != nil {
			return err
		}
	}
	if err := l.listen(); err != nil {
		return err
	}
	if _, limited := l.limit.Bytes(); !hold || !limited && l != c.self {
		return nil
	}
	if err := l.own(); err != nil {
		return err
	}
	return l.arm(time.Now())
}

// own claims the record. l.mu is held.
func (l *level) own() error {
	if l.rec != nil {
		return nil
	}
	if err := l.claim(); err != nil {
		return err
	}
	l.owned.Store(true)
	return l.look() // what a dead owner left was undone just now
}

// disown drops the record. l.mu is held.
func (l *level) disown() error {
	if l.rec == nil {
		return nil
	}
	l.owned.Store(false)
	clear(l.scores.reasons)
	l.scores.shields, l.scores.on = 0, false
	return l.drop()
}

// yield gives the kernel its right to kill back where only c's guard took it,
// c's own processes first. All levels yield before any leaves: whoever is
// exempt still while a limit is hit leaves the others there to be killed.
func (l *level) yield(c *v2) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stakes[c]
	if s == nil || l.rec == nil {
		return nil
	}
	if l == c.self {
		l.scores.resting, l.scores.crowded = false, false
	}
	s.hold = false
	if l.held() {
		return ignoreGone(l.settle())
	}
	clear(l.scores.reasons)
	l.scores.shields = 0 // whatever they were for, the kernel decides from here on
	return ignoreGone(l.standDown())
}

// leave ends c's use. The limits that only its guard changed are put back.
func (l *level) leave(ctx context.Context, c *v2) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stakes[c] == nil {
		return nil
	}
	delete(l.stakes, c)
	l.publish()
	if len(l.stakes) == 0 {
		l.unlisten()
	}
	if l.rec == nil {
		return nil
	}
	if l.needed() {
		err := l.relend(ctx)
		if errors.Is(err, ErrUsage) {
			err = nil // what the others use keeps it: the sampler tries again
		}
		if !l.held() {
			err = errors.Join(err, l.setHigh(l.soft))
		}
		return ignoreGone(err)
	}
	l.fs.sampler.remove(l)
	clear(l.scores.reasons) // an outer guard looked for newcomers meanwhile
	return ignoreGone(errors.Join(l.standDown(), l.undoLimits(false)))
}

// finish ends what leave began, once the tasks run again. l.mu is not held.
func (l *level) finish() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rec == nil || l.needed() {
		return nil
	}
	if !l.rec.empty() { // an outer guard looked for newcomers meanwhile
		clear(l.scores.reasons)
		if err := ignoreGone(l.undoLimits(true)); err != nil {
			return err
		}
	}
	return ignoreGone(l.disown())
}

// publish makes the users known to whoever must not wait for l.mu.
func (l *level) publish() {
	users := slices.Collect(maps.Keys(l.stakes))
	l.users.Store(&users)
}

// held reports whether a user wants the guard. l.mu is held.
func (l *level) held() bool {
	for _, s := range l.stakes {
		if s.hold {
			return true
		}
	}
	return false
}

// needed reports whether a user wants the guard, or has room from here. l.mu is
// held.
func (l *level) needed() bool {
	for _, s := range l.stakes {
		if s.hold || s.room() > 0 {
			return true
		}
	}
	return false
}

// look reads the limits, which nobody of us has changed. l.mu is held.
func (l *level) look() error {
	var err error
	if l.limit, err = l.readLimit(fileMax); err != nil {
		return err
	}
	l.high, err = l.readLimit(fileHigh)
	l.soft = l.high
	return err
}

// limited reports whether there is a limit now.
func (l *level) limited() bool {
	limit, err := l.readLimit(fileMax)
	_, limited := limit.Bytes()
	return err == nil && limited
}

func (l *level) readLimit(name string) (policy.Limit, error) {
	v, err := l.dir.value(name)
	if err != nil {
		return policy.NoLimit, err
	}
	return parseMax(v)
}

// listen registers for what the kernel and strangers do here. l.mu is held.
func (l *level) listen() error {
	if l.watched >= 0 {
		return nil
	}
	f := l.dir.kept[fileLocalEvents]
	if f == nil {
		return nil // before 5.2; Arm says so
	}
	b, err := l.dir.read(fileLocalEvents)
	if err != nil {
		return err
	}
	if l.seen, err = parseMemoryEvents(b); err != nil {
		return err
	}
	for name, changed := range map[string]func(){fileMax: l.maxWritten, fileHigh: l.highWritten} {
		// Our own writes are told as well: changed knows them.
		wd, err := l.fs.watch.notify(l.dir, name, unix.IN_MODIFY, func(uint32, string) { go changed() })
		if err != nil {
			l.unlisten()
			return err
		}
		l.notes = append(l.notes, wd)
	}
	l.watched, l.quiet = int(f.Fd()), false
	return l.fs.watch.add(l.watched, unix.EPOLLPRI, l.notified)
}

func (l *level) unlisten() {
	if l.watched >= 0 {
		l.fs.watch.remove(l.watched)
		l.watched = -1
	}
	for _, wd := range l.notes {
		l.fs.watch.unnotify(wd)
	}
	l.notes = nil
}
