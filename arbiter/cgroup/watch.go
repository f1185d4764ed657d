package cgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A watch waits for everything the kernel tells about all cgroups, in one
// goroutine: eventfds, pidfds, files with POLLPRI, inotify, and work that
// other goroutines post. The epoll instance lies in the runtime's own poller,
// so that waiting blocks no thread and ends with a context.
type watch struct {
	log   hclog.Logger
	epoll *os.File
	wake  int // an eventfd: something was posted

	mu     sync.Mutex
	ready  map[int]func() // by descriptor
	posted []func()

	// notes guards the reading of inotify, so that whoever changes a file can
	// take the notes of its own writes off the queue before anybody takes them
	// for a stranger's.
	notes   sync.Mutex
	inotify int
	files   map[int32]func(mask uint32, name string) // by watch descriptor
	buf     []byte
}

func newWatch(log hclog.Logger) (*watch, error) {
	w := &watch{
		log: log, wake: -1, inotify: -1,
		ready: map[int]func(){}, files: map[int32]func(uint32, string){}, buf: make([]byte, 16<<10),
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	// os.NewFile hands a descriptor to the poller only if it is non-blocking.
	if err := unix.SetNonblock(ep, true); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(ep))
	}
	w.epoll = os.NewFile(uintptr(ep), "epoll")
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), w.close())
	}
	if w.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("inotify_init: %w", err), w.close())
	}
	err = errors.Join(w.add(w.wake, unix.EPOLLIN, w.runPosted), w.add(w.inotify, unix.EPOLLIN, w.settle))
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// close ends run. Descriptors are closed only while nobody else can be using
// them: their numbers are given out again at once.
func (w *watch) close() error {
	w.notes.Lock()
	defer w.notes.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.epoll.Close()
	for _, fd := range []*int{&w.wake, &w.inotify} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	return err
}

func (w *watch) closed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wake < 0
}

// control runs f with the epoll descriptor.
func (w *watch) control(f func(epfd int) error) error {
	c, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// add calls f on the watching goroutine whenever events are pending on fd. f
// must take them off, or remove fd.
func (w *watch) add(fd int, events uint32, f func()) error {
	w.mu.Lock()
	w.ready[fd] = f
	w.mu.Unlock()
	err := w.control(func(epfd int) error {
		return unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	})
	if err != nil {
		w.mu.Lock()
		delete(w.ready, fd)
		w.mu.Unlock()
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// remove ends add. The caller closes fd afterwards.
func (w *watch) remove(fd int) {
	w.mu.Lock()
	delete(w.ready, fd)
	w.mu.Unlock()
	_ = w.control(func(epfd int) error { return unix.EpollCtl(epfd, unix.EPOLL_CTL_DEL, fd, nil) })
}

// post runs f on the watching goroutine, soon.
func (w *watch) post(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.posted = append(w.posted, f)
	_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// after runs f on the watching goroutine after d.
func (w *watch) after(d time.Duration, f func()) {
	time.AfterFunc(d, func() { w.post(f) })
}

func (w *watch) runPosted() {
	w.mu.Lock()
	drain(w.wake)
	work := w.posted
	w.posted = nil
	w.mu.Unlock()
	for _, f := range work {
		f()
	}
}

// drain takes the count off an eventfd.
func drain(fd int) {
	var b [8]byte
	_, _ = unix.Read(fd, b[:]) // EAGAIN: somebody else has
}

// run waits and calls back until ctx is done or the watch is closed.
func (w *watch) run(ctx context.Context) error {
	conn, err := w.epoll.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch cgroups: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		n := 0
		var inner error
		err := conn.Read(func(fd uintptr) bool {
			n, inner = unix.EpollWait(int(fd), events, 0)
			return n != 0 // an error is -1
		})
		if ctx.Err() != nil || errors.Is(inner, unix.EINTR) {
			continue
		}
		if w.closed() {
			return nil
		}
		if err := errors.Join(err, inner); err != nil {
			return fmt.Errorf("watch cgroups: %w", err)
		}
		for _, e := range events[:n] {
			w.call(int(e.Fd))
		}
	}
	return nil
}

// call runs the callback of a descriptor, unless it was removed meanwhile.
func (w *watch) call(fd int) {
	w.mu.Lock()
	f := w.ready[fd]
	w.mu.Unlock()
	if f != nil {
		f()
	}
}

// notify calls f for inotify events on name in the open directory d ("." for
// itself). f runs on any goroutine, must not block and must not call back into
// the watch but for post.
func (w *watch) notify(d *dir, name string, mask uint32, f func(mask uint32, name string)) (wd int32, err error) {
	w.notes.Lock()
	defer w.notes.Unlock()
	n := 0
	err = d.use(func(fd int) (err error) {
		n, err = unix.InotifyAddWatch(w.inotify, fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), mask)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("inotify_add_watch %s of %s: %w", name, d.path, d.gone(err))
	}
	w.files[int32(n)] = f
	return int32(n), nil
}

// unnotify ends notify. The kernel may have ended it already, with the file.
func (w *watch) unnotify(wd int32) {
	w.notes.Lock()
	defer w.notes.Unlock()
	delete(w.files, wd)
	_, _ = unix.InotifyRmWatch(w.inotify, uint32(wd))
}

// settle delivers every inotify event that is queued. Whoever wrote a watched
// file calls it while still marked as the writer, so that only strangers'
// writes are left for later.
func (w *watch) settle() {
	w.notes.Lock()
	defer w.notes.Unlock()
	for {
		n, err := unix.Read(w.inotify, w.buf)
		if err != nil || n <= 0 {
			return
		}
		w.deliver(w.buf[:n])
	}
}

// deliver decodes inotify events: a fixed header and a name padded with zeros.
func (w *watch) deliver(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := min(unix.SizeofInotifyEvent+int(e.Len), len(b))
		name := unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end])
		b = b[end:]
		if e.Mask&unix.IN_Q_OVERFLOW != 0 {
			w.log.Warn("inotify queue overflowed; looking at everything again")
			for _, f := range w.files {
				f(unix.IN_Q_OVERFLOW, "")
			}
			continue
		}
		if f := w.files[e.Wd]; f != nil {
			f(e.Mask, name)
		}
	}
}
