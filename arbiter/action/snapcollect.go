package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	maxProcesses = 1000        // in snapshot.json
	maxArgs      = 50          // processes whose arguments are read
	maxArgsText  = 400         // characters of one process' arguments
	maxMapped    = 5           // processes whose mappings are read
	maxMappings  = 15          // mappings of each
	lockedRead   = time.Second // for a read that needs the target's mmap lock
	maxHanging   = 3           // such reads abandoned before the rest is left out
)

// A collector gathers a report. Nothing it fails at ends it: that goes into
// Missing.
type collector struct {
	env     Env
	began   time.Time
	r       report
	hanging int // reads that were abandoned: each still has its goroutine
}

func (c *collector) run(ctx context.Context, kernelLog string) *report {
	e := c.env
	c.r = report{Case: e.Case, Container: printable(e.Facts.Container.String(), 200), Rule: ruleName(e),
		Trigger: e.Facts.Trigger, Why: e.Facts.Why, Taken: c.began.UTC()}
	c.usage()
	c.cgroups(ctx)
	c.processes(ctx)
	c.node()
	c.kernelLog(ctx, kernelLog)
	c.arguments(ctx)
	c.mappings(ctx)
	c.r.Answer = c.r.answer()
	c.r.Elapsed = time.Since(c.began)
	return &c.r
}

func (c *collector) miss(format string, args ...any) {
	c.r.Missing = append(c.r.Missing, printable(fmt.Sprintf(format, args...), 300))
}

func (c *collector) usage() {
	f := c.env.Facts
	c.r.UsageBytes, c.r.UnreclaimableBytes = f.UsageBytes, f.UnreclaimableBytes
	c.r.LimitBytes, c.r.LimitCgroup = f.Limit, f.LimitCgroup
	u, err := c.env.Cgroup.Usage()
	if err != nil {
		c.miss("usage: %v (the figures are those of the trigger)", err)
		return
	}
	c.r.UsageBytes, c.r.UnreclaimableBytes = u.Current, u.Unreclaimable
	c.r.LimitBytes, c.r.LimitCgroup = u.Limit, u.LimitCgroup
}

// processes reads what no lock of the target is needed for.
func (c *collector) processes(ctx context.Context) {
	pids, err := c.env.Cgroup.Pids()
	if err != nil {
		c.miss("processes: %v", err)
		return
	}
	c.r.ProcessCount = len(pids)
	for i, pid := range pids {
		if ctx.Err() != nil {
			c.miss("%d of %d processes: %v", len(pids)-i, len(pids), ctx.Err())
			break
		}
		p, err := readProcess(c.env.Proc, pid)
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			c.miss("process %d: %v", pid, err)
			continue
		}
		c.r.Processes = append(c.r.Processes, p)
	}
	slices.SortStableFunc(c.r.Processes, func(a, b process) int { return cmp.Compare(b.RSS+b.Swap, a.RSS+a.Swap) })
	if n := len(c.r.Processes); n > maxProcesses {
		c.miss("%d small processes: only the largest %d are listed", n-maxProcesses, maxProcesses)
		c.r.Processes = c.r.Processes[:maxProcesses]
	}
}

func readProcess(fs proc.FS, pid int) (process, error) {
	st, err := fs.Stat(pid)
	if err != nil {
		return process{}, err
	}
	s, err := fs.Status(pid)
	if err != nil {
		return process{}, err
	}
	score, err1 := fs.OOMScore(pid)
	adj, err2 := fs.OOMScoreAdj(pid)
	if err := errors.Join(err1, err2); err != nil {
		return process{}, err
	}
	p := process{
		Pid: pid, NSPid: pid, PPid: st.PPid, UID: s.UIDs[1], Name: printable(st.Comm, 16), State: string(st.State),
		Threads: s.Threads, RSS: s.VmRSS, Anon: s.RssAnon, File: s.RssFile, Shmem: s.RssShmem, Swap: s.VmSwap,
		Peak: s.VmHWM, OOMScore: score, OOMScoreAdj: adj, start: st.Start,
	}
	if n := len(s.NSPids); n > 0 {
		p.NSPid = s.NSPids[n-1]
	}
	// It needs a permission that a hardened daemon may lack; a running
	// process has none.
	if wchan, err := fs.Wchan(pid); err == nil {
		p.Wchan = printable(wchan, 40)
	}
	return p, nil
}

// arguments reads command lines. Their page may have been swapped out: then
// reading it charges the container, so that needs a guard while it is held.
func (c *collector) arguments(ctx context.Context) {
	read := func() {
		for i := range c.r.Processes[:min(len(c.r.Processes), maxArgs)] {
			p := &c.r.Processes[i]
			args, err := locked(ctx, c, "arguments", *p, func(ctx context.Context) ([]string, error) { return c.env.Proc.Cmdline(ctx, p.Pid) })
			if err == nil {
				p.Args = shorten(args)
			}
		}
	}
	if c.env.Cgroup.Status().State != cgroup.HeldNow {
		read()
		return
	}
	err := c.env.Cgroup.Guarded(ctx, func() error {
		read()
		return nil
	})
	if err != nil {
		c.miss("arguments: %v", err)
	}
}

// shorten makes arguments fit to be shown.
func shorten(args []string) []string {
	out := make([]string, 0, len(args))
	left := maxArgsText
	for _, a := range args {
		if left <= 0 {
			return append(out, "…")
		}
		a = printable(a, left)
		left -= len(a) + 1
		out = append(out, a)
	}
	return out
}

func (c *collector) mappings(ctx context.Context) {
	for _, p := range c.r.Processes[:min(len(c.r.Processes), maxMapped)] {
		if p.RSS+p.Swap == 0 {
			continue // a zombie has none
		}
		rollup, err := locked(ctx, c, "memory", p, func(ctx context.Context) (proc.Mapping, error) { return c.env.Proc.SmapsRollup(ctx, p.Pid) })
		if err != nil {
			continue
		}
		m := mappings{Pid: p.Pid, Rollup: show(rollup)}
		top, err := locked(ctx, c, "mappings", p, func(ctx context.Context) ([]proc.Mapping, error) {
			return c.env.Proc.LargestMappings(ctx, p.Pid, maxMappings)
		})
		if err == nil {
			for _, x := range top {
				m.Largest = append(m.Largest, show(x))
			}
		}
		c.r.Mappings = append(c.r.Mappings, m)
	}
}

func show(m proc.Mapping) mapping {
	return mapping{Start: m.Start, End: m.End, Perms: printable(m.Perms, 4), Name: printable(m.Name, 120), Size: m.Size, RSS: m.Rss,
		PSS: m.Pss, Anonymous: m.Anonymous, AnonHuge: m.AnonHuge, Swap: m.Swap, Locked: m.Locked}
}

// locked makes one read that needs the mmap lock of p, which a stuck process
// may hold for ever. After a few that hung, no more are begun. What is read of
// a later process with the same pid is thrown away.
func locked[T any](ctx context.Context, c *collector, what string, p process, read func(context.Context) (T, error)) (T, error) {
	var none T
	if c.hanging >= maxHanging {
		return none, errTooManyHang
	}
	rctx, cancel := context.WithTimeout(ctx, lockedRead)
	defer cancel()
	v, err := read(rctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if c.hanging++; c.hanging == maxHanging {
			c.miss("%v", errTooManyHang)
		}
	}
	if err == nil {
		if st, serr := c.env.Proc.Stat(p.Pid); serr != nil || st.Start != p.start {
			err = proc.ErrGone
		}
	}
	if err != nil {
		if !errors.Is(err, proc.ErrGone) {
			c.miss("%s of process %d (%s): %v", what, p.Pid, p.Name, err)
		}
		return none, err
	}
	return v, nil
}

var errTooManyHang = errors.New("arguments and mappings of further processes: too many reads hang")

func (c *collector) node() {
	m, err := c.env.Proc.Meminfo()
	if err != nil {
		c.miss("node memory: %v", err)
	} else {
		c.r.Node.Memory = &m
	}
	c.r.Node.Pressure = map[string]proc.Pressure{}
	for _, kind := range []string{"memory", "cpu", "io"} {
		p, err := c.env.Proc.NodePressure(kind)
		if err != nil {
			c.miss("node pressure: %v", err)
			return
		}
		c.r.Node.Pressure[kind] = p
	}
}
