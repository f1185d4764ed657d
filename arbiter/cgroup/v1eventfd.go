package cgroup

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// An eventfd is one registration with cgroup.event_control. The kernel signals
// it for what was asked, and once more when the cgroup is removed.
type eventfd struct {
	fs *FS
	fd int
}

// newEventfd asks for notifications of a kernel file: args is empty for
// memory.oom_control, and a number of bytes for usage. f runs on the watching
// goroutine; the count is taken off already.
func (s *FS) newEventfd(d *dir, name, args string, f func()) (*eventfd, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd for %s: %w", d.path, err)
	}
	e := &eventfd{s, fd}
	if err := e.register(d, name, args); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	err = s.watch.add(fd, unix.EPOLLIN, func() {
		drain(fd)
		f()
	})
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return e, nil
}

// register adds one more notification to the same descriptor.
func (e *eventfd) register(d *dir, name, args string) error {
	f, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	line := strings.TrimSpace(fmt.Sprintf("%d %d %s", e.fd, f.Fd(), args))
	return d.write(fileEvents, line)
}

// close ends every registration: the kernel drops them with the descriptor.
func (e *eventfd) close() {
	if e != nil {
		e.fs.watch.remove(e.fd)
		_ = unix.Close(e.fd)
	}
}
