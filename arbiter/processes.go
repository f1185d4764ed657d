package arbiter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
)

// fdsLooked bounds how many open files of a container are looked at.
const fdsLooked = 20000

// pollExit is how often a dying process or cgroup is looked at.
const pollExit = 5 * time.Millisecond

// signal sends sig to one process of the cgroup. The pidfd is opened before
// the membership is checked, so a reused pid cannot be hit.
func (e *Engine) signal(cg cgroup.Cgroup, pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	defer unix.Close(fd)
	pids, err := cg.Pids()
	if err != nil {
		return err
	}
	for _, p := range pids {
		if p == pid {
			err := unix.PidfdSendSignal(fd, sig, nil, 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("signal %d: %w", pid, err)
			}
			return nil
		}
	}
	return nil
}

// waitExit waits until process pid is gone or dead.
func (e *Engine) waitExit(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	defer unix.Close(fd)
	return every(ctx, pollExit, func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
}

// every calls f until it is true or ctx is done.
func every(ctx context.Context, d time.Duration, f func() bool) error {
	t := time.NewTicker(d)
	defer t.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

// largest is the process of the cgroup with the most memory of its own:
// anonymous, shared and swapped, as the kernel's own choice counts it.
func (e *Engine) largest(cg cgroup.Cgroup) (int, error) {
	pids, err := cg.Pids()
	if err != nil {
		return 0, err
	}
	best, most := 0, uint64(0)
	for _, pid := range pids {
		st, err := e.proc.Status(pid)
		if err != nil {
			continue
		}
		if n := st.RssAnon + st.RssShmem + st.VmSwap; best == 0 || n > most {
			best, most = pid, n
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("find the largest process of %s: %w", cg.Path(), cgroup.ErrGone)
	}
	return best, nil
}

// runtimeOf tells what runs in a container of these processes: jvm, go, node, python, dotnet or
// native; "" if its processes do not tell in time.
func (e *Engine) runtimeOf(ctx context.Context, pids []int) string {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	rt, _, err := proc.DetectContainer(ctx, e.proc, pids)
	if err != nil {
		return ""
	}
	return string(rt)
}

// servesFUSE reports whether a process of the container has /dev/fuse open:
// whoever uses its file systems would hang as long as it is held.
func (e *Engine) servesFUSE(ctx context.Context, ct *container) bool {
	pids, err := ct.cg.Pids()
	if err != nil {
		return false
	}
	looked := 0
	for _, pid := range pids {
		dir := e.proc.Path(pid, "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if looked++; looked > fdsLooked || ctx.Err() != nil {
				return false
			}
			if target, err := os.Readlink(dir + "/" + fd.Name()); err == nil && strings.HasPrefix(target, "/dev/fuse") {
				return true
			}
		}
	}
	return false
}
