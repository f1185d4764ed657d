package cgroup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A lock says that this process owns a cgroup's undo record. It is a flock on
// a descriptor of the directory itself, held as long as the record exists, so
// that the kernel lets go of it the moment the owner dies, however it dies.
type lock struct{ f *os.File }

// tryLock takes the lock of d, or returns ErrLocked if anybody has it, this
// process included. It never waits.
func tryLock(d *dir) (*lock, error) {
	f, err := d.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return &lock{f}, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock cgroup %s: %w", d.path, ErrLocked)
	}
	return nil, fmt.Errorf("lock cgroup %s: %w", d.path, d.gone(err))
}

// unlock lets go. A nil lock is one that --force did without. Closing alone
// would not do: a program that is being started right now has the descriptor
// too until it runs.
func (l *lock) unlock() {
	if l != nil {
		_ = unix.Flock(int(l.f.Fd()), unix.LOCK_UN) // it is a flock of ours
		l.f.Close()
	}
}
