package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is one process for good: its pid may be given to another one
// later, the pidfd and the start time never are. Needs Linux 5.3.
type Process struct {
	Pid   int
	Start uint64 // clock ticks since boot
	fd    *os.File
}

// OpenProcess takes hold of process pid as it is now.
func (fs FS) OpenProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, pidError("open", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller: Wait takes no thread
		_ = unix.Close(fd)
		return nil, pidError("open", pid, err)
	}
	p := &Process{Pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}
	// Read after the pidfd is open: if the process ends and its pid is reused
	// in between, the pidfd is dead, and Alive says so.
	st, err := fs.Stat(pid)
	if err == nil && !p.Alive() {
		err = pidError("open", pid, unix.ESRCH)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.Start = st.Start
	return p, nil
}

// OpenSameProcess takes hold of process pid if it is still the one that was
// started at start; else ErrGone.
func (fs FS) OpenSameProcess(pid int, start uint64) (*Process, error) {
	p, err := fs.OpenProcess(pid)
	if err != nil {
		return nil, err
	}
	if p.Start != start {
		p.Close()
		return nil, pidError("open", pid, unix.ESRCH)
	}
	return p, nil
}

// Close lets go of the process.
func (p *Process) Close() { _ = p.fd.Close() }

// Signal sends sig to this process and no other.
func (p *Process) Signal(sig unix.Signal) error {
	if err := p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) }); err != nil {
		return pidError("signal", p.Pid, err)
	}
	return nil
}

// Alive tells whether the process has not ended. A zombie has.
func (p *Process) Alive() bool {
	ended := false
	err := p.control(func(fd int) (err error) {
		ended, err = readable(fd)
		return err
	})
	return err == nil && !ended
}

// Wait returns once the process has ended, whoever its parent is, or with
// ctx's error. Only one goroutine may wait for one Process.
func (p *Process) Wait(ctx context.Context) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	if err := p.fd.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { _ = p.fd.SetReadDeadline(past) })
	defer stop()
	var poll error
	err = raw.Read(func(fd uintptr) (done bool) {
		done, poll = readable(int(fd))
		return done || poll != nil
	})
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
	}
	if err := errors.Join(err, poll); err != nil {
		return fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	return nil
}

// control runs f on the descriptor, which is not closed meanwhile.
func (p *Process) control(f func(fd int) error) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// readable tells whether a pidfd's process has ended.
func readable(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

func pidError(op string, pid int, err error) error {
	if errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	return fmt.Errorf("%s process %d: %w", op, pid, err)
}
