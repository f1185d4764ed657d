package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cri"
)

// A Jcmd carries commands to a JVM through a JDK's own jcmd: slower by half a
// second each, and with another 40 MiB of room where it runs in the container.
type Jcmd struct {
	j    *JVM
	argv []string // the client and the pid as it knows it
	run  func(ctx context.Context, argv []string) ([]byte, error)
}

var _ Commander = (*Jcmd)(nil)

// ExecIn runs a command inside the JVM's container, through its runtime.
type ExecIn func(ctx context.Context, cmd cri.Command) (output []byte, exit int, err error)

// Jcmd finds a client for j: the container's own, if commands can be run there
// and it lies beside the java that runs; else the host's.
func (j *JVM) Jcmd(ctx context.Context, in ExecIn) (*Jcmd, error) {
	if in != nil {
		if client, ok := j.ownJcmd(); ok {
			return &Jcmd{j, []string{client, strconv.Itoa(j.nsPid())}, func(ctx context.Context, argv []string) ([]byte, error) {
				out, exit, err := in(ctx, cri.Command{Argv: argv})
				if err == nil && exit != 0 {
					err = fmt.Errorf("exit status %d: %s", exit, firstLine(out))
				}
				return out, err
			}}, nil
		}
	}
	client, err := hostJcmd()
	if err != nil {
		return nil, fmt.Errorf("jvm %d: %w (%w)", j.pid, err, ErrTakeCore)
	}
	return &Jcmd{j, []string{client, strconv.Itoa(j.pid)}, func(ctx context.Context, argv []string) ([]byte, error) {
		// A jcmd outside the container does not find its attach file again to
		// remove it.
		defer j.removeAttachFiles()
		return runOnHost(ctx, argv)
	}}, nil
}

// removeAttachFiles removes what a jcmd outside the container leaves in the
// JVM's working directory or /tmp.
func (j *JVM) removeAttachFiles() {
	name := fmt.Sprintf(".attach_pid%d", j.nsPid())
	cwd, err := unix.Open(j.fs.Path(j.pid, "cwd"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer closeFD(cwd)
	}
	j.cleanUp(func() {
		_ = unix.Unlinkat(j.tmp, name, 0)
		if err == nil {
			_ = unix.Unlinkat(cwd, name, 0)
		}
	})
}

// ownJcmd is the client's path as the container sees it.
func (j *JVM) ownJcmd() (string, bool) {
	java, err := os.Readlink(j.fs.Path(j.pid, "exe"))
	if err != nil {
		return "", false
	}
	client := filepath.Join(filepath.Dir(java), "jcmd")
	root, err := unix.Open(j.fs.Path(j.pid, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer closeFD(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(client, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", false
	}
	closeFD(fd) // it was opened to see whether it is there
	return client, true
}

// hostJcmd is the jcmd of a JDK on the host.
func hostJcmd() (string, error) {
	if path, err := exec.LookPath("jcmd"); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/jvm/*/bin/jcmd")
	if err != nil || len(found) == 0 {
		return "", errors.New("no jcmd in the container or on the host")
	}
	return found[len(found)-1], nil
}

func runOnHost(ctx context.Context, argv []string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout = &limited{&out, maxReply}
	cmd.Stderr = cmd.Stdout
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, firstLine(lastLine(out.Bytes())))
	}
	return out.Bytes(), nil
}

// Pid is the JVM's.
func (c *Jcmd) Pid() int { return c.j.pid }

// Command runs a diagnostic command. jcmd sends SIGQUIT to whatever it is
// given, so the rule is kept here.
func (c *Jcmd) Command(ctx context.Context, command string) ([]byte, error) {
	if err := c.j.mayQuit(ctx); err != nil {
		return nil, fmt.Errorf("jvm %d: %w", c.j.pid, err)
	}
	out, err := c.run(ctx, append(append([]string(nil), c.argv...), strings.Fields(command)...))
	if err != nil {
		return nil, fmt.Errorf("jvm %d: jcmd %s: %w", c.j.pid, command, err)
	}
	// The first line is the pid.
	_, rest, _ := bytes.Cut(out, []byte("\n"))
	return rest, nil
}

// limited fails a program that prints without end.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, ErrTooLong
	}
	l.left -= len(p)
	return l.to.Write(p)
}
