package proc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// DialTCP connects to an address as process pid would: in its network
// namespace. The socket keeps that namespace.
func (fs FS) DialTCP(ctx context.Context, pid int, to netip.AddrPort) (net.Conn, error) {
	target, err := os.Open(fs.Path(pid, "ns", "net"))
	if err != nil {
		return nil, fileError(pid, "ns/net", err)
	}
	defer target.Close()
	c, err := inNetNS(target, func() (net.Conn, error) {
		// For a literal address this goroutine makes the socket itself.
		return new(net.Dialer).DialContext(ctx, "tcp", to.String())
	})
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	return c, nil
}

// inNetNS runs f on a thread that is in another network namespace. A thread
// that does not find its way back stays locked and ends with its goroutine.
func inNetNS[T any](target *os.File, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() { done <- r }()
		runtime.LockOSThread()
		ours, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			r.err = err
			return
		}
		defer ours.Close()
		if r.err = setns(target); r.err == nil {
			r.v, r.err = f()
		}
		if err := setns(ours); err != nil {
			return
		}
		runtime.UnlockOSThread()
	}()
	r := <-done
	return r.v, r.err
}

func setns(to *os.File) error {
	raw, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	if err != nil {
		return err
	}
	return os.NewSyscallError("setns", inner)
}
