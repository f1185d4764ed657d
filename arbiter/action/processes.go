package action

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// A target is a process that an action is aimed at.
type target struct {
	*proc.Process
	comm string
	rss  uint64 // bytes in RAM and swap
	init bool   // pid 1 of its own pid namespace
}

// selectProcesses takes hold of the container's processes that a policy's
// `process` key means: "pid1", "largest", "all" or "name=GLOB". The caller
// closes them. None at all is an error.
func selectProcesses(ctx context.Context, env Env, which string) ([]target, error) {
	choose, err := chooser(which)
	if err != nil {
		return nil, err
	}
	all, err := openProcesses(ctx, env)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the container has no process: %w", proc.ErrGone)
	}
	chosen := choose(all)
	keep := map[int]bool{}
	for _, t := range chosen {
		keep[t.Pid] = true
	}
	for _, t := range all {
		if !keep[t.Pid] {
			t.Close()
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no process %s among %d", which, len(all))
	}
	return chosen, nil
}

// chooser is the choice that a `process` key asks for.
func chooser(which string) (func([]target) []target, error) {
	glob, named := strings.CutPrefix(which, "name=")
	switch {
	case named:
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("process %q: %w", which, err)
		}
		return func(all []target) (out []target) {
			for _, t := range all {
				if ok, _ := path.Match(glob, t.comm); ok {
					out = append(out, t)
				}
			}
			return out
		}, nil
	case which == "all":
		return func(all []target) []target { return all }, nil
	case which == "largest":
		return largest, nil
	case which == "pid1" || which == "":
		return first, nil
	}
	return nil, fmt.Errorf("process %q: want pid1, largest, all or name=GLOB", which)
}

func largest(all []target) []target {
	best := all[0]
	for _, t := range all[1:] {
		if t.rss > best.rss {
			best = t
		}
	}
	return []target{best}
}

// first is the container's first process: pid 1 of its namespace, or where it
// shares the node's, the one that started first.
func first(all []target) []target {
	best := all[0]
	for _, t := range all[1:] {
		if t.init != best.init {
			if t.init {
				best = t
			}
			continue
		}
		if t.Start < best.Start || t.Start == best.Start && t.Pid < best.Pid {
			best = t
		}
	}
	return []target{best}
}

// openProcesses takes hold of every process of the container. Those that end
// meanwhile are left out.
func openProcesses(ctx context.Context, env Env) ([]target, error) {
	pids, err := env.Cgroup.Pids()
	if err != nil {
		return nil, err
	}
	var all []target
	for _, pid := range pids {
		t, err := openTarget(env, pid)
		if err == nil {
			all = append(all, t)
		}
		if err == nil || errors.Is(err, proc.ErrGone) {
			err = ctx.Err()
		}
		if err != nil {
			closeAll(all)
			return nil, err
		}
	}
	return all, nil
}

func openTarget(env Env, pid int) (target, error) {
	p, err := env.Proc.OpenProcess(pid)
	if err != nil {
		return target{}, err
	}
	st, err1 := env.Proc.Stat(pid)
	status, err2 := env.Proc.Status(pid)
	if err := errors.Join(err1, err2); err != nil {
		p.Close()
		return target{}, err
	}
	n := len(status.NSPids)
	return target{Process: p, comm: st.Comm, rss: status.VmRSS + status.VmSwap, init: n > 1 && status.NSPids[n-1] == 1}, nil
}

func closeAll(ts []target) {
	for _, t := range ts {
		t.Close()
	}
}
