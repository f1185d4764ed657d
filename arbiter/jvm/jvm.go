// Package jvm talks to HotSpot JVMs in containers from outside, as jcmd does
// but without a JDK: thread dumps, class histograms, native memory, and heap
// dumps that stream through a FIFO, so that they take no disk in the container
// and charge it no page cache.
//
// HotSpot's attach mechanism: the client creates /tmp/.attach_pidN and sends
// SIGQUIT; the JVM then listens on the unix socket /tmp/.java_pidN and accepts
// peers of its own effective uid and gid, or root of its user namespace. N is
// the pid in the JVM's own pid namespace, /tmp is the one of its mount
// namespace, and uids are those of its user namespace. Any of these may be
// another than ours, and the container may be hostile, so:
//
//   - paths are opened below /proc/PID/root by openat2 with RESOLVE_IN_ROOT and
//     never by name; the socket is opened O_PATH|O_NOFOLLOW and connected to
//     through /proc/self/fd;
//   - everything in the container is done on a thread with the JVM's own uid
//     and gid and no capabilities;
//   - the peer's pid is checked: with a /tmp that containers share, another
//     JVM may answer;
//   - SIGQUIT is sent through a pidfd, and only to what is proven to be a
//     HotSpot that catches it: it kills anything else;
//   - every answer is bounded in size and time.
//
// A JVM that is blocked at its memory limit answers nothing: raise the limit
// and thaw before calling anything here. Where attaching cannot work, errors
// wrap ErrTakeCore and say why: a core dump is the way to a heap dump then.
package jvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const exitTime = 300 * time.Millisecond

var (
	// ErrTakeCore says that this JVM cannot be attached to. The text around it
	// says why.
	ErrTakeCore = errors.New("take a core")
	// ErrWrongPeer says that another process owns the JVM's socket.
	ErrWrongPeer = errors.New("another process answers")
	// ErrTooLong says that an answer went over its bound.
	ErrTooLong = errors.New("answer is too long")
)

// A JVM is one process that was proven to be a HotSpot JVM.
type JVM struct {
	fs     proc.FS
	pid    int
	proc   *proc.Process
	tmp    int // /tmp of the JVM's mount namespace, O_PATH
	status proc.Status
}

// Open proves that pid is a HotSpot JVM and opens its /tmp. The process is
// held by a pidfd: a reused pid is another process.
func Open(ctx context.Context, fs proc.FS, pid int) (*JVM, error) {
	j := &JVM{fs: fs, pid: pid, tmp: -1}
	if err := j.open(ctx); err != nil {
		j.Close()
		return nil, fmt.Errorf("attach to jvm %d: %w", pid, err)
	}
	return j, nil
}

func (j *JVM) open(ctx context.Context) error {
	var err error
	if j.proc, err = j.fs.OpenProcess(j.pid); err != nil {
		return err
	}
	ok, err := proc.HotSpot(ctx, j.fs, j.pid)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("it runs no HotSpot that could be attached to: %w", ErrTakeCore)
	}
	if j.status, err = j.fs.Status(j.pid); err != nil {
		return err
	}
	tmp, err := proc.Abandon(ctx, func() (int, error) { return openTmp(j.fs, j.pid) })
	if err != nil {
		return fmt.Errorf("open its /tmp: %w (%w)", err, ErrTakeCore)
	}
	j.tmp = tmp
	return j.alive()
}

// openTmp opens /tmp as the JVM sees it. The magic link /proc/PID/root leads
// into its mount namespace; from there no symlink may lead out.
func openTmp(fs proc.FS, pid int) (int, error) {
	root, err := unix.Open(fs.Path(pid, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open root", err)
	}
	defer closeFD(root)
	tmp, err := unix.Openat2(root, "tmp", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, os.NewSyscallError("openat2 /tmp", err)
	}
	return tmp, nil
}

// Close lets go of the descriptors. The JVM is not touched.
func (j *JVM) Close() {
	if j.proc != nil {
		j.proc.Close()
	}
	if j.tmp >= 0 {
		closeFD(j.tmp)
		j.tmp = -1
	}
}

// closeFD closes a descriptor that nothing was written to, such as O_PATH.
func closeFD(fd int) { _ = unix.Close(fd) }

// Pid is the process, in our own pid namespace.
func (j *JVM) Pid() int { return j.pid }

// nsPid is the pid that the JVM has in its own pid namespace.
func (j *JVM) nsPid() int {
	if n := len(j.status.NSPids); n > 0 {
		return j.status.NSPids[n-1]
	}
	return j.pid
}

// alive tells whether the process that Open found still exists.
func (j *JVM) alive() error {
	if !j.proc.Alive() {
		return proc.ErrGone
	}
	return nil
}

// exits tells whether the process is gone, or goes within a moment: a process
// that is killed closes its sockets some time before it has ended.
func (j *JVM) exits() bool {
	ctx, cancel := context.WithTimeout(context.Background(), exitTime)
	defer cancel()
	return j.proc.Wait(ctx) == nil
}
