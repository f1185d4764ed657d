package dump

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A thread is one task that is, or is about to be, stopped by us.
type thread struct {
	pid, tid int
	state    threadState
	// signal was about to be delivered when the thread stopped. It goes on its
	// way when the thread is let go.
	signal int
}

type threadState uint8

const (
	deferred threadState = iota // not seized yet, see tracer.seize
	seized                      // asked to stop
	trapped                     // stands still; registers can be read
	ended
)

// A tracer stops threads. All its methods must run on one locked OS thread:
// to the kernel a tracer is a thread, not a process.
type tracer struct {
	threads map[int]*thread
}

// errTraced says that somebody else (a debugger, strace) traces the process.
var errTraced = errors.New("traced by another process")

// ptraceEventStop is the event of a PTRACE_INTERRUPT stop, above the signal in
// a wait status.
const ptraceEventStop = 128

// seize asks all threads of a process to stop, again and again until no new
// one shows up: a running process may be creating some. It waits for nothing.
//
// A thread that is stopped by a signal is left for seizeDeferred when later
// is true: seizing a stopped task waits until the task moves, and in the v1
// freezer it does not.
func (t *tracer) seize(pid int, later bool) error {
	for {
		tids, err := processDir(pid).tasks()
		if err != nil {
			return gone(err)
		}
		fresh := 0
		for _, tid := range tids {
			if t.threads[tid] != nil {
				continue
			}
			fresh++
			th := &thread{pid: pid, tid: tid}
			t.threads[tid] = th
			if s, err := processDir(pid).thread(tid).stat(); later && err == nil && s.State == 'T' {
				continue
			}
			if err := t.seizeThread(th); err != nil {
				return err
			}
		}
		if fresh == 0 {
			return nil
		}
	}
}

// seizeDeferred seizes what seize left, once the freezer is open. One that
// cannot be seized stays stopped by its signal.
func (t *tracer) seizeDeferred() {
	for _, th := range t.threads {
		if th.state == deferred {
			_ = t.seizeThread(th)
		}
	}
}

func (t *tracer) seizeThread(th *thread) error {
	err := unix.PtraceSeize(th.tid)
	if errors.Is(err, unix.EPERM) {
		// EPERM is also the answer for a task that has exited.
		s, serr := processDir(th.pid).thread(th.tid).stat()
		if serr != nil || s.State == 'Z' || s.State == 'X' {
			err = unix.ESRCH
		} else {
			status, _ := processDir(th.pid).thread(th.tid).read("status")
			if by := statusField(status, "TracerPid"); by != "0" && by != "" {
				delete(t.threads, th.tid)
				return fmt.Errorf("thread %d: %w %s", th.tid, errTraced, by)
			}
		}
	}
	if errors.Is(err, unix.ESRCH) {
		th.state = ended
		return nil
	}
	if err != nil {
		delete(t.threads, th.tid)
		return fmt.Errorf("seize thread %d: %w", th.tid, err)
	}
	th.state = seized
	if err := unix.PtraceInterrupt(th.tid); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("interrupt thread %d: %w", th.tid, err)
	}
	return nil
}

// wait collects the stops until no seized thread is left, or ctx is done.
// It returns how many are not stopped: tasks in an uninterruptible sleep,
// such as a parent in vfork(2).
func (t *tracer) wait(ctx context.Context) int {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		left := 0
		for _, th := range t.threads {
			if th.state == seized {
				if t.collect(th); th.state == seized {
					left++
				}
			}
		}
		if left == 0 {
			return 0
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return left
		case <-timer.C:
		}
	}
}

// collect looks once whether a thread has stopped. It never waits for -1: that
// would take the stops of threads out of turn.
func (t *tracer) collect(th *thread) {
	var ws unix.WaitStatus
	tid, err := unix.Wait4(th.tid, &ws, unix.WALL|unix.WNOHANG, nil)
	switch {
	case err != nil && !errors.Is(err, unix.EINTR):
		th.state = ended // ECHILD: it is not ours any more
	case err != nil || tid == 0:
	case ws.Exited() || ws.Signaled():
		th.state = ended
	case ws.Stopped():
		th.state = trapped
		if uint32(ws)>>16 != ptraceEventStop {
			th.signal = int(ws.StopSignal())
		}
	}
}

// detach lets every trapped thread go. Threads that never trapped are let go
// by the kernel when the helper ends.
func (t *tracer) detach() {
	for _, th := range t.threads {
		if th.state == trapped {
			// ESRCH: killed meanwhile.
			_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(th.tid), 0, uintptr(th.signal), 0, 0)
			th.state = ended
		}
	}
}

// of lists the live threads of a process, the main thread first: debuggers
// take the first one for the one that matters.
func (t *tracer) of(pid int) []*thread {
	var list []*thread
	for _, th := range t.threads {
		if th.pid == pid && th.state != ended {
			list = append(list, th)
		}
	}
	sortThreads(list)
	return list
}

// forget lets the threads of a process go that turned out to be another one.
func (t *tracer) forget(pid int) {
	for tid, th := range t.threads {
		if th.pid == pid {
			t.collect(th)
			if th.state == trapped {
				_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0, uintptr(th.signal), 0, 0)
			}
			delete(t.threads, tid) // else it is let go when the helper ends
		}
	}
}

// untracedThreads lists the threads of a process that nobody of us traces.
func untracedThreads(pid int) []*thread {
	tids, err := processDir(pid).tasks()
	if err != nil {
		return nil
	}
	list := make([]*thread, 0, len(tids))
	for _, tid := range tids {
		list = append(list, &thread{pid: pid, tid: tid})
	}
	sortThreads(list)
	return list
}
