package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
)

// stopWithin is how long a worker that was told to stop may take: its cases
// end and everything is disarmed. TimeoutStopSec= must be longer.
const stopWithin = 20 * time.Second

// releaseWithin bounds a release.
const releaseWithin = 10 * time.Second

// releaseTries and releaseRetry are for what is still locked.
const (
	releaseTries = 4
	releaseRetry = 100 * time.Millisecond
)

// Waits between two starts of a worker that died.
const (
	restartFirst = time.Second
	restartMost  = 30 * time.Second
	restartCalm  = time.Minute // a worker that lived so long starts the waits anew
)

func superviseCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "supervise",
		Short: "run the daemon, and let go of every container the moment it dies",
		Long: "supervise starts the daemon as its child, restarts it when it dies, and\n" +
			"releases everything that it held or armed the moment it dies or stops\n" +
			"answering. It holds no state of its own.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return supervise(cmd.Context(), o) },
	}
}

// supervisor starts workers and cleans up after them.
type supervisor struct {
	o   *options
	fs  *cgroup.FS
	log hclog.Logger
	sig chan os.Signal
}

func supervise(ctx context.Context, o *options) error {
	c, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	log := newLogger(c).Named("supervise")
	fs, err := cgroup.Open(o.cgroupRoot, log)
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory not locked", "error", err)
	}
	s := &supervisor{o: o, fs: fs, log: log, sig: make(chan os.Signal, 8)}
	signal.Notify(s.sig, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(s.sig)
	return s.run(ctx)
}

// run starts a worker after the other until one was told to stop.
func (s *supervisor) run(ctx context.Context) error {
	wait := restartFirst
	for {
		started := time.Now()
		stopped, err := s.worker(ctx)
		s.release()
		if stopped {
			return err
		}
		s.log.Error("worker ended", "error", err)
		if time.Since(started) > restartCalm {
			wait = restartFirst
		}
		if stopped, err := s.pause(ctx, wait); stopped {
			return err
		}
		wait = min(2*wait, restartMost)
	}
}

// pause waits before the next start, if it is not told to stop.
func (s *supervisor) pause(ctx context.Context, d time.Duration) (stopped bool, err error) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case sig := <-s.sig:
			if sig != unix.SIGHUP {
				return true, nil
			}
		case <-t.C:
			return false, nil
		}
	}
}

// worker runs one worker to its end. stopped reports whether it was told to.
func (s *supervisor) worker(ctx context.Context) (stopped bool, err error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return false, err
	}
	defer ours.Close()
	cmd := exec.Command(selfPath(), "--config", s.o.config, "--cgroup-root", s.o.cgroupRoot, "--link", "3")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return false, fmt.Errorf("start worker: %w", err)
	}
	s.log.Info("worker started", "pid", cmd.Process.Pid)
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	heard := make(chan byte, 16)
	go listen(ours, heard)
	return s.attend(ctx, cmd.Process, exited, heard)
}

// attend waits for the worker's end, and brings it about when the worker falls
// silent or does not stop.
func (s *supervisor) attend(ctx context.Context, p *os.Process, exited <-chan error, heard <-chan byte) (stopped bool, err error) {
	silence := time.NewTimer(stopWithin) // a start may take longer than a beat
	defer silence.Stop()
	done := ctx.Done()
	for {
		select {
		case err := <-exited:
			return stopped, err
		case b, ok := <-heard:
			if !ok {
				heard = nil
				continue
			}
			s.notify(b)
			if !stopped {
				silence.Reset(deadAfter)
			}
		case sig := <-s.sig:
			if sig != unix.SIGHUP {
				stopped = true
				silence.Reset(stopWithin)
				s.tell(sd.SdNotifyStopping)
			}
			if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				s.log.Warn("pass signal on", "error", err)
			}
		case <-done:
			done, stopped = nil, true
			silence.Reset(stopWithin)
			_ = p.Signal(unix.SIGTERM) // what it does not heed is killed below
		case <-silence.C:
			s.log.Error("worker does not answer: killing it", "pid", p.Pid)
			_ = p.Kill() // gone already is as good
			err := <-exited
			return stopped, errors.Join(errors.New("worker did not answer"), err)
		}
	}
}

// release lets go of whatever the worker left. A child that the worker was
// just starting can hold its locks for a moment longer than the worker lived,
// so what is locked is tried again; what another daemon owns stays locked.
func (s *supervisor) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
	defer cancel()
	for try := 1; ; try++ {
		report, err := s.fs.Release(ctx, cgroup.ReleaseOptions{All: true})
		report.Log(s.log)
		if err != nil {
			s.log.Error("release", "error", err)
		}
		if len(report.Skipped) == 0 || try == releaseTries {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(releaseRetry):
		}
	}
}

// notify passes what the worker said on to systemd.
func (s *supervisor) notify(b byte) {
	if b == sayReady {
		s.tell(sd.SdNotifyReady)
	}
	s.tell(sd.SdNotifyWatchdog)
}

func (s *supervisor) tell(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		s.log.Warn("notify systemd", "error", err)
	}
}

// listen reads what the worker says until it is gone.
func listen(f *os.File, heard chan<- byte) {
	defer close(heard)
	b := make([]byte, 1)
	for {
		if _, err := f.Read(b); err != nil {
			return
		}
		select {
		case heard <- b[0]:
		default: // unread beats say no more than one
		}
	}
}

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "supervisor"), nil
}
