package dump

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A Helper starts helper processes. The zero value runs the present program
// as `PROGRAM dump PID`.
type Helper struct {
	// Argv is the command up to and with the argument that leads to Main.
	Argv []string
	// Cgroup is the memory cgroup directory in which each helper gets a cgroup
	// of its own; "" is this process' own cgroup.
	Cgroup string
	// MemoryBytes bounds a helper's memory, the page cache of the core it
	// writes included; 0 is DefaultMemory.
	MemoryBytes uint64
}

// How long threads are given to trap. One that is in an uninterruptible sleep
// will not, however long one waits; and behind an open freezer each moment is
// one too many.
const (
	trapThawed = time.Second
	trapFrozen = 10 * time.Second
)

// A Hold is how the container is kept where it is while its threads go from
// the freezer into their traps.
type Hold struct {
	// Pids lists the processes of the container; nil: they are not looked at
	// again once they are seized.
	Pids func() ([]int, error)
	// Trap opens the freezer, calls f, and closes the freezer again, whatever
	// f returns. It is nil where tasks trap without a thaw: in a v2 freezer, or
	// not frozen at all.
	Trap func(ctx context.Context, f func(context.Context) error) error
}

var (
	errDied = errors.New("the dump helper died")
	// errSpoke says that a message of another kind came.
	errSpoke = errors.New("the dump helper said something else")
)

// Dump writes the cores of req.Targets to files, which go in the same order.
// It returns at the latest a few seconds behind ctx; a helper that hangs in
// the kernel is left behind, killed. The files are of no use after an error,
// nor where Core.Error says so.
func (h Helper) Dump(ctx context.Context, req Request, files []*os.File, hold Hold, tell func(done, total uint64)) (Report, error) {
	if len(files) != len(req.Targets) {
		return Report{}, fmt.Errorf("dump %d processes into %d files", len(req.Targets), len(files))
	}
	req.Targets = slices.Clone(req.Targets)
	for i := range req.Targets {
		req.Targets[i].FD = 3 + i
	}
	if req.Within == 0 {
		req.Within = within(ctx)
	}
	if req.TrapWithin = trapFrozen; hold.Trap != nil {
		req.TrapWithin = trapThawed
	}
	ctx, cancel := context.WithTimeout(ctx, req.Within+overtime)
	defer cancel()
	s, err := h.start(files)
	if err != nil {
		return Report{}, err
	}
	defer s.end()
	report, err := s.talk(ctx, req, hold, tell)
	report.Missing = append(report.Missing, s.missing...)
	return report, err
}

// within is how long the helper may write when it must be done by ctx's
// deadline.
func within(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 10 * time.Minute
	}
	left := time.Until(deadline)
	return max(left-min(left/5, 2*time.Second), time.Millisecond)
}

// A session is one running helper.
type session struct {
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	stderr   bytes.Buffer
	messages chan message // closed when the helper is dead
	dead     chan struct{}
	cgroup   string
	missing  []string
}

// start runs a helper. It does nothing until the request reaches it: time
// enough to put it into its cgroup.
func (h Helper) start(files []*os.File) (*session, error) {
	argv := h.Argv
	if len(argv) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("start dump helper: %w", err)
		}
		argv = []string{self, "dump"}
	}
	argv = append(slices.Clone(argv), strconv.Itoa(os.Getpid()))
	s := &session{messages: make(chan message), dead: make(chan struct{})}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = []string{"GOTRACEBACK=single"}
	s.cmd.ExtraFiles = files
	s.cmd.Stderr = &limitedWriter{&s.stderr, 4096}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.cmd.WaitDelay = time.Second
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start dump helper: %w", err)
	}
	s.stdin = stdin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start dump helper: %w", err)
	}
	started := make(chan error)
	go s.run(stdout, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start dump helper: %w", err)
	}
	s.cgroup, s.missing = h.enclose(s.cmd.Process.Pid)
	return s, nil
}

// run starts the helper and reads its messages until it is dead. The kernel
// sends the death signal when the thread ends that started the process, not
// the process: so this one thread stays.
func (s *session) run(stdout io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	in := json.NewDecoder(stdout)
	for {
		var m message
		if err := in.Decode(&m); err != nil {
			break
		}
		select {
		case s.messages <- m:
		case <-s.dead:
		}
	}
	_ = s.cmd.Process.Kill() // it closed its output: it is at its end, or worse
	_ = s.cmd.Wait()
	close(s.messages)
	removeCgroup(s.cgroup)
}

// end kills a helper that still runs. It does not wait for it: a process that
// hangs in the kernel ends when the kernel lets it.
func (s *session) end() {
	s.stdin.Close()
	_ = s.cmd.Process.Kill()
	close(s.dead)
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-s.messages:
			if !ok {
				return
			}
		case <-timer.C:
			return
		}
	}
}

func (s *session) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("tell the dump helper: %w", err)
	}
	if _, err := s.stdin.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("tell the dump helper: %w", err)
	}
	return nil
}

func (s *session) receive(ctx context.Context) (message, error) {
	select {
	case m, ok := <-s.messages:
		if !ok {
			if text := bytes.TrimSpace(s.stderr.Bytes()); len(text) > 0 {
				return m, fmt.Errorf("%w: %s", errDied, text)
			}
			return m, errDied
		}
		if m.Error != "" {
			return m, errors.New(m.Error)
		}
		return m, nil
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

// A limitedWriter keeps the beginning of what is written to it.
type limitedWriter struct {
	to   *bytes.Buffer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	n, _ := w.to.Write(p[:min(len(p), w.left)])
	w.left -= n
	return len(p), nil
}
