package cgroupfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// An event is one inotify record: what happened to name in the directory dir.
type event struct {
	mask uint32
	dir  string // relative to the root; "" for an overflow of the queue
	name string
}

// inotify is a descriptor that the runtime's poller waits on: a reader sleeps
// without a thread of its own, and Close wakes it.
type inotify struct {
	file *os.File
	dirs map[int32]string // watch descriptor to directory
	buf  []byte
}

const watchMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init: %w", err)
	}
	return &inotify{
		file: os.NewFile(uintptr(fd), "inotify"),
		dirs: map[int32]string{},
		buf:  make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1)),
	}, nil
}

// Watch starts watching a directory; one that is watched already stays so.
func (in *inotify) Watch(root, rel string) error {
	raw, err := in.file.SyscallConn()
	if err != nil {
		return err
	}
	var wd int
	var werr error
	err = raw.Control(func(fd uintptr) {
		wd, werr = unix.InotifyAddWatch(int(fd), path.Join(root, rel), watchMask)
	})
	if err != nil {
		return err
	}
	if werr != nil {
		return fmt.Errorf("watch %s: %w", rel, werr)
	}
	in.dirs[int32(wd)] = rel
	return nil
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
		ev := event{mask: binary.NativeEndian.Uint32(b[4:]), dir: in.dirs[wd]}
		size := uint64(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > uint64(len(b)) {
			return events
		}
		ev.name = strings.TrimRight(string(b[:size]), "\x00")
		b = b[size:]
		if ev.mask&unix.IN_IGNORED != 0 {
			delete(in.dirs, wd)
		}
		if ev.dir != "" || ev.mask&unix.IN_Q_OVERFLOW != 0 {
			events = append(events, ev)
		}
	}
	return events
}

func (in *inotify) Close() error { return in.file.Close() }
