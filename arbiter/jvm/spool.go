package jvm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

const (
	dumpName    = "heap"
	segmentName = "heap.p0"
)

// A spool is a directory of ours in the container's /tmp, owned by the JVM's
// user. It exists so that a JVM that opens the dump after we gave up finds no
// directory, rather than creating a regular file that would stay behind.
type spool struct {
	j    *JVM
	name string // of the directory in /tmp
	dir  int    // O_PATH

	removed bool
}

func newSpool(ctx context.Context, j *JVM) (*spool, error) {
	s := &spool{j: j, name: ".arbiter-" + rand.Text(), dir: -1}
	dir, err := as(ctx, j, func() (int, error) {
		if err := unix.Mkdirat(j.tmp, s.name, 0o700); err != nil {
			return -1, err
		}
		return unix.Openat(j.tmp, s.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		s.remove()
		return nil, fmt.Errorf("create /tmp/%s: %w (%w)", s.name, err, ErrTakeCore)
	}
	s.dir = dir
	return s, nil
}

// path is a file's name as the JVM opens it.
func (s *spool) path(file string) string { return path.Join("/tmp", s.name, file) }

// fifo makes a FIFO and opens it for reading and writing: so the JVM finds a
// reader at once, we see no end of file between two writers, and an open of
// the JVM for reading does not block either.
func (s *spool) fifo(ctx context.Context, name string) (int, error) {
	fd, err := as(ctx, s.j, func() (int, error) {
		if err := unix.Mknodat(s.dir, name, unix.S_IFIFO|0o600, 0); err != nil {
			return -1, err
		}
		return s.open(name, unix.O_RDWR, unix.S_IFIFO)
	})
	if err != nil {
		return -1, fmt.Errorf("make fifo %s: %w (%w)", s.path(name), err, ErrTakeCore)
	}
	return fd, nil
}

// regular opens a file that the JVM wrote.
func (s *spool) regular(ctx context.Context, name string) (*os.File, error) {
	fd, err := as(ctx, s.j, func() (int, error) { return s.open(name, unix.O_RDONLY, unix.S_IFREG) })
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path(name), err)
	}
	return os.NewFile(uintptr(fd), s.path(name)), nil
}

// open opens a file that must be of a certain type: the container can have
// put anything else in its place.
func (s *spool) open(name string, flags int, typ uint32) (int, error) {
	fd, err := unix.Openat(s.dir, name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != typ {
		err = errors.New("it was replaced")
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was read yet
		return -1, err
	}
	return fd, nil
}

// remove takes everything away again. The directory is renamed first: from
// then on the JVM finds nothing under the path that it was told, and makes
// nothing there. The names are all that we or HotSpot make.
func (s *spool) remove() {
	if s.removed {
		return
	}
	s.removed = true
	s.j.cleanUp(func() {
		gone := s.name + "-gone"
		if err := unix.Renameat(s.j.tmp, s.name, s.j.tmp, gone); err != nil {
			gone = s.name
		}
		if s.dir >= 0 {
			_ = unix.Unlinkat(s.dir, dumpName, 0)
			_ = unix.Unlinkat(s.dir, segmentName, 0)
		}
		_ = unix.Unlinkat(s.j.tmp, gone, unix.AT_REMOVEDIR)
	})
	if s.dir >= 0 {
		_ = unix.Close(s.dir) // O_PATH: nothing can be lost
	}
}
