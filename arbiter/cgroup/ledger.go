package cgroup

import (
	"sync"
)

// A ledger is a directory that this process may own: its undo record, and the
// lock that says so. mu guards both, and every kernel file that the record
// names: whoever writes one holds it.
type ledger struct {
	fs  *FS
	dir *dir

	mu   sync.Mutex
	rec  *Record // nil while not owned
	lock *lock
}

// claim makes this process the owner. What a dead owner left is undone first.
// ErrLocked says that another owner lives. l.mu is held.
func (l *ledger) claim() error {
	if l.rec != nil {
		return nil
	}
	k, err := tryLock(l.dir)
	if err != nil {
		return err
	}
	stale, err := l.dir.record()
	if err == nil && stale != nil {
		_, err = l.fs.undo(l.dir, stale, true)
	}
	if err != nil {
		k.unlock()
		return err
	}
	l.lock, l.rec = k, &Record{}
	if stale != nil {
		l.rec = stale // what could not be undone yet stays on the books
	}
	return nil
}

// save writes the record, before the change that it tells of. l.mu is held.
func (l *ledger) save() error {
	if err := l.dir.setRecord(l.rec); err != nil {
		return err
	}
	l.fs.changed("record written", l.dir.path)
	return nil
}

// drop removes the record if nothing is left to undo, and lets go of the lock.
// l.mu is held.
func (l *ledger) drop() error {
	if l.rec == nil {
		return nil
	}
	if l.rec.empty() {
		if err := ignoreGone(l.dir.dropRecord()); err != nil {
			return err
		}
		l.fs.changed("record removed", l.dir.path)
	}
	l.lock.unlock()
	l.rec, l.lock = nil, nil
	return nil
}
