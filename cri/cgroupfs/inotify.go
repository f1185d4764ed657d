package cgroupfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// An event is one inotify record: what happened to name in the directory dir,
// or to a limit of the cgroup dir.
type event struct {
	mask  uint32
	dir   string // relative to the root; "" for an overflow of the queue
	name  string
	limit bool
}

// inotify is a descriptor that the runtime's poller waits on: a reader sleeps
// without a thread of its own, and Close wakes it.
type inotify struct {
	file    *os.File
	watches map[int32]watched // by watch descriptor
	buf     []byte
}

// watched is what a watch is on: a cgroup's directory, or one of its limits.
type watched struct {
	dir   string
	limit bool
}

const watchMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init: %w", err)
	}
	return &inotify{
		file:    os.NewFile(uintptr(fd), "inotify"),
		watches: map[int32]watched{},
		buf:     make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1)),
	}, nil
}

// limitFiles are what a runtime writes a container's limit to, on v1 and v2.
var limitFiles = []string{"memory.limit_in_bytes", "memory.max"}

// WatchDir starts watching a directory; one that is watched already stays so.
func (in *inotify) WatchDir(root, rel string) error {
	_, err := in.watch(path.Join(root, rel), watchMask, watched{dir: rel})
	return err
}

// WatchLimit starts watching a cgroup's limit, if it has one: the hierarchy
// that is followed may have no memory controller. Zero is no watch.
func (in *inotify) WatchLimit(root, rel string) (wd int32) {
	for _, name := range limitFiles {
		wd, err := in.watch(path.Join(root, rel, name), unix.IN_MODIFY, watched{dir: rel, limit: true})
		if err == nil {
			return wd
		}
	}
	return 0
}

// Unwatch ends a watch. The kernel does so by itself for a directory that is
// removed, but not for the files that vanish with it.
func (in *inotify) Unwatch(wd int32) {
	if wd == 0 {
		return
	}
	delete(in.watches, wd)
	_ = in.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(wd))
		return err
	})
}

func (in *inotify) watch(name string, mask uint32, what watched) (wd int32, err error) {
	err = in.control(func(fd int) error {
		n, err := unix.InotifyAddWatch(fd, name, mask)
		wd = int32(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", name, err)
	}
	in.watches[wd] = what
	return wd, nil
}

// control runs f with the descriptor, which Close cannot take away meanwhile.
func (in *inotify) control(f func(fd int) error) error {
	raw, err := in.file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Read waits for events.
func (in *inotify) Read() ([]event, error) {
	n, err := in.file.Read(in.buf)
	if err != nil {
		return nil, fmt.Errorf("read inotify: %w", err)
	}
	return in.parse(in.buf[:n]), nil
}

// parse splits a buffer into records. The kernel writes whole records only:
// wd, mask, cookie and len of 32 bits each, then len bytes of a name padded
// with zeros. After IN_IGNORED the watch is gone and its number may be reused.
func (in *inotify) parse(b []byte) []event {
	var events []event
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		on := in.watches[wd]
		ev := event{mask: binary.NativeEndian.Uint32(b[4:]), dir: on.dir, limit: on.limit}
		size := uint64(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > uint64(len(b)) {
			return events
		}
		ev.name = strings.TrimRight(string(b[:size]), "\x00")
		b = b[size:]
		if ev.mask&unix.IN_IGNORED != 0 {
			delete(in.watches, wd)
		}
		if ev.dir != "" || ev.mask&unix.IN_Q_OVERFLOW != 0 {
			events = append(events, ev)
		}
	}
	return events
}

func (in *inotify) Close() error { return in.file.Close() }
