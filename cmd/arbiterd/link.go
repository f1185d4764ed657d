package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/arbiterd/arbiter/arbiter"
)

// What the worker says to its supervisor, one byte each.
const (
	sayReady = 'R'
	sayAlive = 'A'
)

// beat is how often the worker says that it is alive, and deadAfter how long
// its silence lasts before it counts as dead.
const (
	beat      = time.Second
	deadAfter = 5 * time.Second
)

// link is the worker's end of the socket to its supervisor. Its end of file
// means that the supervisor is gone. Without a supervisor, systemd is told.
type link struct{ f *os.File }

// openLink takes the descriptor that the supervisor left open; -1 is none.
func openLink(fd int) (*link, error) {
	if fd < 0 {
		return &link{}, nil
	}
	f := os.NewFile(uintptr(fd), "supervisor")
	if f == nil {
		return nil, fmt.Errorf("--link=%d is no open file", fd)
	}
	return &link{f}, nil
}

func (l *link) say(b byte) error {
	if l.f != nil {
		_, err := l.f.Write([]byte{b})
		return err
	}
	state := sd.SdNotifyWatchdog
	if b == sayReady {
		state = sd.SdNotifyReady
	}
	_, err := sd.SdNotify(false, state)
	return err
}

// ready says that the daemon guards containers from now on. A supervisor that
// does not hear it is noticed by watch.
func (l *link) ready() { _ = l.say(sayReady) }

// watch says that the engine is alive as long as it is, and ends ctx if the
// supervisor is gone: then nobody would let go of held containers after us.
func (l *link) watch(ctx context.Context, cancel context.CancelCauseFunc, e *arbiter.Engine) {
	if l.f != nil {
		go func() {
			_, err := l.f.Read(make([]byte, 1))
			if err != nil && !errors.Is(err, os.ErrClosed) {
				cancel(arbiter.ErrOrphaned)
			}
		}()
	}
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if !e.Alive() {
				continue
			}
			if err := l.say(sayAlive); err != nil && l.f != nil {
				cancel(arbiter.ErrOrphaned)
				return
			}
		}
	}
}
