package casebook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// ErrInUse says that another daemon owns the book.
var ErrInUse = errors.New("in use by another daemon")

// trash marks a case that is being removed.
const trash = ".removing-"

// Limits are what the book may keep. A zero value is no limit.
type Limits struct {
	Retain    time.Duration // closed cases older than this are removed
	MaxBytes  policy.Size   // of everything in the book; % is of the disk
	MinFree   policy.Size   // what artifacts leave free on the disk; % is of the disk
	CaseBytes policy.Size   // of one case's artifacts; % is of the disk
	MaxCases  int           // a crash loop can open a case a minute
}

// A Book is the casebook of one daemon. Its methods may be called from any
// goroutine.
type Book struct {
	dir    string // STATE/cases
	limits Limits
	log    hclog.Logger
	budget budget

	mu   sync.Mutex
	root *os.Root // nil while the directory could not be made
	lock *os.File
	live map[string]*Case // cases that are being written
	// parked are those of live that are closed, and wait for room on the disk.
	parked  map[string]*Case
	closing bool
}

// Open opens the book of a state directory and makes it if need be. On a full
// or read-only disk it says so in the log and goes on: cases are then kept in
// memory until there is room. ErrInUse if another daemon has the book open.
func Open(dir string, l Limits, log hclog.Logger) (*Book, error) {
	b := &Book{
		dir:    filepath.Join(dir, "cases"),
		limits: l,
		log:    log,
		live:   map[string]*Case{},
		parked: map[string]*Case{},
	}
	b.budget = budget{limits: l, dir: b.dir, statfs: unix.Statfs}
	switch err := b.attach(); {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EDQUOT):
		b.log.Error("cases cannot be written now", "dir", b.dir, "error", err)
	case err != nil:
		return nil, err
	}
	return b, nil
}

// attach opens the book's directory, locks it, and counts what is there.
func (b *Book) attach() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root != nil {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("open casebook: %w", err)
	}
	lock, err := os.Open(b.dir)
	if err != nil {
		return fmt.Errorf("open casebook: %w", err)
	}
	// The lock is on the directory itself: it needs no room on the disk.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("open casebook %s: %w", b.dir, ErrInUse)
		}
		return fmt.Errorf("lock casebook %s: %w", b.dir, err)
	}
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		lock.Close()
		return fmt.Errorf("open casebook: %w", err)
	}
	b.root, b.lock = root, lock
	b.sweep()
	used, err := diskUse(root, ".")
	if err != nil {
		b.log.Warn("the casebook's size is not fully known", "dir", b.dir, "error", err)
	}
	b.budget.add(used)
	return nil
}

// sweep ends removals that a crash cut short.
func (b *Book) sweep() {
	names, err := dirNames(b.root, ".")
	if err != nil {
		b.log.Warn("casebook not readable", "dir", b.dir, "error", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, trash) {
			if err := b.root.RemoveAll(name); err != nil {
				b.log.Warn("case not removed", "path", filepath.Join(b.dir, name), "error", err)
			}
		}
	}
}

// Close lets go of the book. Open cases are closed as they are.
func (b *Book) Close() error {
	b.mu.Lock()
	b.closing = true
	live := make([]*Case, 0, len(b.live))
	for _, c := range b.live {
		live = append(live, c)
	}
	b.mu.Unlock()
	var errs []error
	for _, c := range live {
		errs = append(errs, c.Close())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root != nil {
		// A program that is being started right now has the descriptor too.
		errs = append(errs, unix.Flock(int(b.lock.Fd()), unix.LOCK_UN), b.root.Close(), b.lock.Close())
		b.root = nil
	}
	return errors.Join(errs...)
}

// Dir is the directory that holds the cases.
func (b *Book) Dir() string { return b.dir }

// UsedBytes is the disk space that the book takes.
func (b *Book) UsedBytes() int64 { return b.budget.total() }

// Create opens a new case. Where r.ID is empty it is made from r.Opened.
//
// If the disk refuses, the error says so, and the case is usable all the same:
// it is kept in memory and the next Save tries again. The case is nil only if
// the id is taken or no id.
func (b *Book) Create(r *Record) (*Case, error) {
	given := r.ID != ""
	for range 100 {
		if !given {
			r.ID = NewID(r.Opened)
		}
		c, err := b.reserve(r.ID)
		if errors.Is(err, fs.ErrExist) && !given {
			continue
		}
		if err != nil {
			return nil, err
		}
		return c, c.Save(r)
	}
	return nil, fmt.Errorf("create case: no free id at %s", r.Opened.UTC().Format(idTime))
}

// reserve registers a case that does not exist yet.
func (b *Book) reserve(id string) (*Case, error) {
	if _, ok := TimeOf(id); !ok {
		return nil, fmt.Errorf("create case %q: %w", id, ErrInvalidID)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.live[id] != nil
	if b.root != nil && !taken {
		_, err := b.root.Lstat(id)
		taken = err == nil
	}
	if taken {
		return nil, fmt.Errorf("create case %s: %w", id, fs.ErrExist)
	}
	c := &Case{book: b, id: id}
	b.live[id] = c
	return c, nil
}

// ids lists the cases on disk and in memory, newest first.
func (b *Book) ids() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	var err error
	if b.root != nil {
		names, err = dirNames(b.root, ".")
	}
	ids := slices.DeleteFunc(names, func(name string) bool {
		_, ok := TimeOf(name)
		return !ok || b.live[name] != nil
	})
	for id := range b.live {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, err
}

func (b *Book) liveCase(id string) *Case {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live[id]
}

// caseRoot opens a case's directory on disk.
func (b *Book) caseRoot(id string) (*os.Root, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root == nil {
		return nil, fmt.Errorf("case %s: %w", id, ErrNotFound)
	}
	root, err := b.root.OpenRoot(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("case %s: %w", id, ErrNotFound)
	}
	return root, err
}
