package jvm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	// attachTimeout bounds the wait for the socket after SIGQUIT. It appears
	// after 6 to 16 ms; near the memory limit reclaim throttling makes seconds.
	attachTimeout = 8 * time.Second
	attachPoll    = 5 * time.Millisecond

	cleanUpTimeout = 2 * time.Second
)

// errNoSocket says that nobody listens yet.
var errNoSocket = errors.New("no socket")

// connect dials the JVM, and wakes its attach listener first if need be.
func (j *JVM) connect(ctx context.Context) (net.Conn, error) {
	c, err := j.dial(ctx)
	if !errors.Is(err, errNoSocket) {
		return c, err
	}
	return j.trigger(ctx)
}

// dial connects to the socket that may be there already: from an earlier
// attach, or since -XX:+StartAttachListener. A socket that nobody listens on
// is left over from another JVM of the same pid.
func (j *JVM) dial(ctx context.Context) (net.Conn, error) {
	conn, err := as(ctx, j, func() (net.Conn, error) {
		return dialAt(j.tmp, fmt.Sprintf(".java_pid%d", j.nsPid()))
	})
	if err != nil {
		return nil, err
	}
	if err := j.checkPeer(conn); err != nil {
		_ = conn.Close() // nothing was said yet
		return nil, err
	}
	return conn, nil
}

// dialAt connects to the unix socket name in directory dir. A connect through
// /proc/self/fd reaches the inode that was looked at, whatever the name leads
// to meanwhile.
func dialAt(dir int, name string) (net.Conn, error) {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, errNoSocket
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%s is no socket: %w", name, ErrTakeCore)
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(sock), name)
	defer f.Close() // FileConn has its own copy
	err = unix.Connect(sock, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", fd)})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, errNoSocket
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("connect to %s: its queue is full, the JVM accepts nobody: %w", name, ErrTakeCore)
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return net.FileConn(f)
}

// checkPeer compares who listens with whom we want. The kernel notes the
// listener's pid at listen(2) and translates it into our namespace; 0 is a
// process outside of it.
func (j *JVM) checkPeer(c net.Conn) error {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return fmt.Errorf("read the peer's credentials: %w", err)
	}
	if int(cred.Pid) != j.pid {
		return fmt.Errorf("%w on .java_pid%d: process %d (a /tmp that containers share?): %w",
			ErrWrongPeer, j.nsPid(), cred.Pid, ErrTakeCore)
	}
	return nil
}

// trigger creates the attach file, sends SIGQUIT and waits for the socket. The
// signal is repeated once: while the JVM starts its listener, the first one
// can be lost.
func (j *JVM) trigger(ctx context.Context) (net.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	remove, err := j.attachFile(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	if err := j.quit(ctx); err != nil {
		return nil, err
	}
	tick := time.NewTicker(attachPoll)
	defer tick.Stop()
	again := time.NewTimer(attachTimeout / 2)
	defer again.Stop()
	for {
		select {
		case <-wait.Done():
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("wait for the attach socket: %w", err)
			}
			return nil, fmt.Errorf("no answer to SIGQUIT in %s (-XX:+DisableAttachMechanism, or the JVM is stuck): %w",
				attachTimeout, ErrTakeCore)
		case <-again.C:
			if err := j.quit(ctx); err != nil {
				return nil, err
			}
		case <-tick.C:
			if err := j.alive(); err != nil {
				return nil, err
			}
			if c, err := j.dial(ctx); !errors.Is(err, errNoSocket) {
				return c, err
			}
		}
	}
}

// attachFile creates .attach_pidN, without which SIGQUIT means a thread dump
// to the JVM's standard output. HotSpot wants it to be its own.
func (j *JVM) attachFile(ctx context.Context) (remove func(), err error) {
	name := fmt.Sprintf(".attach_pid%d", j.nsPid())
	_, err = as(ctx, j, func() (struct{}, error) {
		fd, err := unix.Openat(j.tmp, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EEXIST) {
			return struct{}{}, nil // left by a client that was killed; it serves as well
		}
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, unix.Close(fd)
	})
	if err != nil {
		return nil, fmt.Errorf("create /tmp/%s: %w (%w)", name, err, ErrTakeCore)
	}
	return func() { j.cleanUp(func() { _ = unix.Unlinkat(j.tmp, name, 0) }) }, nil
}

// cleanUp removes what we made in the container, also after ctx is done. What
// cannot be removed was removed by the container.
func (j *JVM) cleanUp(f func()) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTimeout)
	defer cancel()
	_, _ = as(ctx, j, func() (struct{}, error) { f(); return struct{}{}, nil })
}

// quit sends SIGQUIT if that is safe.
func (j *JVM) quit(ctx context.Context) error {
	if err := j.mayQuit(ctx); err != nil {
		return err
	}
	return j.proc.Signal(unix.SIGQUIT)
}

// mayQuit proves again that SIGQUIT is harmless: the process may have called
// execve since.
func (j *JVM) mayQuit(ctx context.Context) error {
	ok, err := proc.HotSpot(ctx, j.fs, j.pid)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("it is no JVM any more: %w", proc.ErrGone)
	}
	s, err := j.fs.Status(j.pid)
	if err != nil {
		return err
	}
	if !catchesQuit(s) {
		return fmt.Errorf("it does not catch SIGQUIT (-Xrs, or not yet started) and would die of it: %w", ErrTakeCore)
	}
	return nil
}

// catchesQuit tells whether SIGQUIT reaches a handler. Which threads block it
// does not matter: HotSpot blocks it in all but one.
func catchesQuit(s proc.Status) bool {
	const bit = 1 << (unix.SIGQUIT - 1)
	return s.SigCaught&bit != 0 && s.SigIgnored&bit == 0
}
