package jvm

import (
	"context"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// as runs f on a thread that has the JVM's effective uid and gid, no further
// groups and, unless that uid is 0, no effective capabilities. What f opens,
// creates and connects to is then permitted, owned and seen as if the JVM did
// it. The real uid stays ours: the container cannot signal or trace us. If the
// container's filesystem does not answer until ctx is done, the thread is left
// behind.
func as[T any](ctx context.Context, j *JVM, f func() (T, error)) (T, error) {
	return proc.Abandon(ctx, func() (v T, err error) {
		runtime.LockOSThread()
		ours := currentCreds()
		err = setCreds(creds{uid: j.status.UIDs[1], gid: j.status.GIDs[1]})
		if err == nil {
			v, err = f()
		}
		// A thread that cannot be put right stays locked and ends with its
		// goroutine. As a habit that would be wrong: the end of a thread kills
		// the children that it started with a parent-death signal.
		if back := setCreds(ours); back != nil {
			return v, back
		}
		runtime.UnlockOSThread()
		return v, err
	})
}

// creds are a thread's own, unlike what the C library and the syscall package
// offer, which change all threads of the process.
type creds struct {
	uid, gid int
	groups   []uint32
}

func currentCreds() creds {
	c := creds{uid: unix.Geteuid(), gid: unix.Getegid()}
	groups, err := unix.Getgroups()
	if err != nil {
		return c
	}
	for _, g := range groups {
		c.groups = append(c.groups, uint32(g))
	}
	return c
}

// setCreds sets the effective ids. Uid 0 comes first and any other last, since
// it takes the right to change the rest away. The kernel gives effective
// capabilities back with effective uid 0 (capabilities(7)).
func setCreds(c creds) error {
	if c.uid == 0 {
		if err := setEUID(0); err != nil {
			return err
		}
	}
	var list *uint32
	if len(c.groups) > 0 {
		list = &c.groups[0]
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.groups)), uintptr(unsafe.Pointer(list)), 0); e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(c.gid), unchanged); e != 0 {
		return os.NewSyscallError("setresgid", e)
	}
	return setEUID(c.uid)
}

const unchanged = ^uintptr(0)

func setEUID(uid int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	return nil
}
