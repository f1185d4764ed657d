package dump

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// talk leads a helper through a dump.
func (s *session) talk(ctx context.Context, req Request, hold Hold, tell func(done, total uint64)) (Report, error) {
	if err := s.send(req); err != nil {
		return Report{}, err
	}
	m, err := s.receive(ctx)
	if err == nil && !m.Seized {
		err = errSpoke
	}
	if err != nil {
		return Report{}, fmt.Errorf("seize threads: %w", err)
	}
	thawed, err := s.trap(ctx, req, hold, m.Untraced)
	if err != nil {
		return Report{Thawed: thawed}, err
	}
	for {
		m, err := s.receive(ctx)
		switch {
		case err != nil:
			return Report{Thawed: thawed}, fmt.Errorf("write cores: %w", err)
		case m.Report != nil:
			m.Report.Thawed = thawed
			return *m.Report, nil
		case m.Progress != nil && tell != nil:
			tell(m.Progress.Done, m.Progress.Total)
		}
	}
}

// trap brings the seized threads into their traps and has the helper go on.
// If the freezer must be opened for that, every process in it has to be
// seized, or it would run on: else the cores are written without traps.
func (s *session) trap(ctx context.Context, req Request, hold Hold, untraced string) (thawed time.Duration, err error) {
	if hold.Trap != nil && untraced == "" {
		untraced = strangers(req.Held, hold)
	}
	if hold.Trap != nil && untraced != "" {
		return 0, s.send(order{Untraced: untraced})
	}
	wait := func(ctx context.Context) error {
		if err := s.send(order{Thawed: true}); err != nil {
			return err
		}
		// A container must not run on for longer than a helper that works takes.
		ctx, cancel := context.WithTimeout(ctx, 2*req.TrapWithin)
		defer cancel()
		m, err := s.receive(ctx)
		if err == nil && !m.Trapped {
			err = errSpoke
		}
		return err
	}
	if hold.Trap == nil {
		err = wait(ctx)
	} else {
		started := time.Now()
		err = hold.Trap(ctx, wait)
		thawed = time.Since(started)
	}
	if err != nil {
		return thawed, fmt.Errorf("trap threads: %w", err)
	}
	return thawed, s.send(order{Frozen: true})
}

// strangers tells of a process in the container that was not seized.
func strangers(held []Process, hold Hold) string {
	if hold.Pids == nil {
		return ""
	}
	pids, err := hold.Pids()
	if err != nil {
		return fmt.Sprintf("list processes: %v", err)
	}
	for _, pid := range pids {
		if !slices.ContainsFunc(held, func(p Process) bool { return p.Pid == pid }) {
			return fmt.Sprintf("process %d joined the container meanwhile", pid)
		}
	}
	return ""
}
