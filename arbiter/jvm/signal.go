package jvm

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A signal is an error, or success, that can be waited for in poll(2).
type signal struct {
	fd   int // readable once it is set
	done chan error
	set  func(error)
}

func newSignal() (*signal, error) {
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	s := &signal{fd: fds[0], done: make(chan error, 1)}
	s.set = func(err error) {
		s.done <- err
		_ = unix.Close(fds[1]) // the reader sees the end of file
	}
	return s, nil
}

// wait waits for set and returns what it was given.
func (s *signal) wait() error {
	err := <-s.done
	_ = unix.Close(s.fd) // a pipe's reading end: nothing can be lost
	return err
}

// poll waits until one of the descriptors is readable.
func poll(fds ...int) ([]bool, error) {
	p := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		p[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		_, err := unix.Poll(p, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("poll", err)
		}
		ready := make([]bool, len(fds))
		for i := range p {
			ready[i] = p[i].Revents != 0
		}
		return ready, nil
	}
}
