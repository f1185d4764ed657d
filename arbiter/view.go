package arbiter

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/api/server"
	"github.com/arbiterd/arbiter/policy"
)

// Holds lists the cases that hold or act on a container now, longest first.
func (e *Engine) Holds() []api.Hold {
	e.mu.Lock()
	open := make([]*Case, 0, len(e.cases))
	for _, c := range e.cases {
		open = append(open, c)
	}
	e.mu.Unlock()
	out := []api.Hold{}
	for _, c := range open {
		if c.holds() {
			out = append(out, c.view())
		}
	}
	slices.SortFunc(out, func(a, b api.Hold) int {
		if d := a.HeldSince.Compare(b.HeldSince); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// stops reports whether the case is one that stops its container, now or soon.
func (c *Case) stops() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.hold
}

// holds reports whether the container of the case stands still, or did.
func (c *Case) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st.hold && !c.st.heldAt.IsZero() && c.st.phase != closed
}

// Changed is closed when what Holds returns may have changed.
func (e *Engine) Changed() <-chan struct{} { return e.changed.wait() }

// Guards lists every container that a rule matches.
func (e *Engine) Guards() []api.Guard {
	out := []api.Guard{}
	for _, ct := range e.snapshot() {
		out = append(out, guardOf(ct))
	}
	return out
}

func guardOf(ct container) api.Guard {
	state, u, sl := ct.figures()
	g := api.Guard{
		Cgroup: ct.id.Cgroup, Namespace: ct.id.Pod.Namespace, Pod: ct.id.Pod.Name,
		Container: nameOf(ct.id), ContainerID: ct.id.ID, State: string(state), Missing: ct.why,
	}
	if g.Missing == nil {
		g.Missing = []string{}
	}
	if len(ct.rules) > 0 {
		r := first(ct.rules)
		g.Rule, g.Mode = r.Name, string(r.Mode)
	}
	if ct.cg != nil {
		st := ct.cg.Status()
		g.Freezer, g.BorrowedBytes, g.GrantedBytes = st.Freezer, st.Borrowed, st.Granted
	}
	if u != nil {
		g.UsageBytes = u.Current
		if n, ok := u.Limit.Bytes(); ok {
			g.LimitBytes = &n
		}
	}
	if sl.Known {
		g.GrowthBytesPerSecond = &sl.BytesPerSecond
		if s := sl.TimeToLimit.Seconds(); s > 0 {
			g.SecondsToLimit = &s
		}
	}
	return g
}

// Status is the daemon's own state.
func (e *Engine) Status() api.Status {
	held, armed, borrowed := e.budgets.spent()
	s := api.Status{
		Version: e.opts.Version, Pid: os.Getpid(), Started: e.started, CgroupVersion: e.fs.Version(),
		Sources: e.sourceStatus(), Held: held, HeldMax: e.budgets.max.Held,
		Armed: armed, ArmedMax: e.budgets.max.Armed,
		BorrowedBytes: borrowed, BorrowedMax: e.budgets.max.BorrowedBytes,
		Disarmed: []string{}, Degraded: e.degraded(),
	}
	if e.fs.Version() == 2 {
		s.Armed = e.fs.Guarding() // v2 arms by memory.high; only guards count
	}
	s.StateDir, s.StateBytes = e.book.Dir(), e.book.UsedBytes()
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Policy, s.NodeRail = e.loaded, e.rail
	if e.disarmedAll {
		s.Disarmed = append(s.Disarmed, "all")
	}
	for p := range e.disarmed {
		s.Disarmed = append(s.Disarmed, p)
	}
	slices.Sort(s.Disarmed)
	return s
}

// Explain decides for a target as it is now, and changes nothing.
func (e *Engine) Explain(ctx context.Context, name string) (string, error) {
	ct, err := e.target(name)
	if err != nil {
		return "", err
	}
	cg, err := e.fs.Get(ct.id.Cgroup)
	if err != nil {
		return "", fmt.Errorf("%w: %w", server.ErrNotFound, err)
	}
	u, err := cg.Usage()
	if err != nil {
		return "", err
	}
	pids, err := cg.Pids()
	if err != nil {
		return "", err
	}
	f := policy.Facts{
		At: time.Now(), Container: ct.id, Trigger: policy.OnLimit, CgroupVersion: e.fs.Version(),
		Limit: u.BaseLimit, LimitCgroup: u.LimitCgroup, UsageBytes: u.Current, UnreclaimableBytes: u.Unreclaimable,
		BorrowableBytes: e.budgets.borrowable(), Runtime: e.runtimeOf(ctx, pids),
	}
	e.mu.Lock()
	f.Resumes = ct.resumes
	p := e.policy
	e.mu.Unlock()
	text := policy.Explain(p, ct.id, f)
	if why, reserved := e.fs.Reserved(ct.id.Cgroup); reserved {
		text = "never matched, whatever a rule says: " + why + "\n" + text
	}
	return text, nil
}

func (e *Engine) degraded() []string { return append([]string{}, e.fs.Missing()...) }
