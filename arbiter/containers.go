package arbiter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// rearmAfter is how long a container that was given back to the kernel is left
// alone before it is guarded again.
const rearmAfter = 5 * time.Second

// container is what the engine knows of one container. Its fields are guarded
// by Engine.mu; cg is set once, by the worker that opens it.
type container struct {
	id       cri.Container
	from     map[string]bool  // the sources that report it
	acks     []func()         // sources that wait until it is guarded
	rules    []*policy.Rule   // the winner of each trigger
	triggers [][]*policy.Rule // rules by trigger
	cg       cgroup.Cgroup
	why      []string // why it is not guarded, or not fully
	failed   bool     // arming failed
	armed    bool     // holds a place in the armed budget

	busy    bool // being armed or let go of: no case opens meanwhile
	gone    bool // its directory was removed; another may stand in its place
	open    *Case
	again   *cgroup.Event        // the limit was met again since the open case let it run
	ended   map[string]time.Time // rule name → when its last case closed
	resumes int
	killed  time.Time   // when its last case ended everything in it
	granted uint64      // bytes above the original limit since a resume
	lower   *time.Timer // gives granted back
	quiet   time.Time   // not guarded until then

	usage *cgroup.Usage // the last sample
	slope slope
	curve curve
}

// slope is how usage grows.
type slope struct {
	BytesPerSecond float64
	TimeToLimit    time.Duration
	Known          bool
}

// figures is what guards and metrics show of a container.
func (ct *container) figures() (cgroup.State, *cgroup.Usage, slope) {
	if ct.cg == nil {
		if ct.failed {
			return cgroup.Failed, nil, slope{}
		}
		return cgroup.Unarmed, nil, slope{}
	}
	u := ct.usage
	if now, err := ct.cg.Usage(); err == nil {
		u = &now
	}
	st := ct.cg.Status()
	if ct.failed {
		return cgroup.Failed, u, ct.slope
	}
	return st.State, u, ct.slope
}

// snapshot copies the containers that a rule matches, by cgroup.
func (e *Engine) snapshot() []container {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []container
	for _, ct := range e.containers {
		if len(ct.rules) > 0 || ct.open != nil {
			out = append(out, *ct)
		}
	}
	slices.SortFunc(out, func(a, b container) int { return strings.Compare(a.id.Cgroup, b.id.Cgroup) })
	return out
}

// observe takes in what a source reports. It only notes and queues.
func (e *Engine) observe(source string, ev cri.Event) {
	if ev.Kind == cri.Synced {
		return
	}
	path := ev.Container.Cgroup
	e.mu.Lock()
	ct := e.containers[path]
	switch {
	case ev.Kind == cri.Removed:
		if ct != nil {
			delete(ct.from, source)
		}
	case ct == nil:
		ct = newContainer(ev.Container)
		ct.from[source] = true
		e.containers[path] = ct
	default:
		ct.from[source] = true
		ct.id = merge(ct.id, ev.Container)
	}
	if ct != nil && ev.Done != nil {
		ct.acks = append(ct.acks, ev.Done)
	} else if ev.Done != nil {
		ev.Done()
	}
	e.mu.Unlock()
	e.queue.add(path)
}

func newContainer(id cri.Container) *container {
	return &container{id: id, from: map[string]bool{}, ended: map[string]time.Time{}}
}

// merge keeps what either source knows; a later report wins where both do.
// A new id under an old path is another container.
func merge(old, now cri.Container) cri.Container {
	if old.ID != "" && now.ID != "" && old.ID != now.ID {
		return now
	}
	if now.Pod.Name == "" {
		now.Pod = old.Pod
	}
	for _, f := range []struct{ dst, src *string }{
		{&now.ID, &old.ID}, {&now.Name, &old.Name}, {&now.Image, &old.Image},
	} {
		if *f.dst == "" {
			*f.dst = *f.src
		}
	}
	if now.Pid == 0 {
		now.Pid = old.Pid
	}
	if now.RestartCount == 0 {
		now.RestartCount = old.RestartCount
	}
	return now
}

// reconcile makes one container's guard what the policy wants now.
func (e *Engine) reconcile(ctx context.Context, path string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	e.mu.Lock()
	ct := e.containers[path]
	if ct == nil || ct.open != nil {
		e.mu.Unlock()
		return
	}
	ct.busy = true
	defer e.settled(ct)
	gone := ct.gone || len(ct.from) == 0
	acks := ct.acks
	ct.acks = nil
	e.mu.Unlock()
	defer func() {
		for _, done := range acks {
			done()
		}
	}()
	if gone {
		e.forget(ctx, ct)
		return
	}
	if err := e.guard(ctx, ct); errors.Is(err, cgroup.ErrGone) {
		e.forget(ctx, ct)
	} else if err != nil {
		e.log.Warn("container not guarded", "container", ct.id.String(), "cgroup", path, "error", err)
	}
}

// settled ends a worker's time with a container. A limit that was met meanwhile
// opens its case now.
func (e *Engine) settled(ct *container) {
	e.mu.Lock()
	ct.busy = false
	again := ct.again
	ct.again = nil
	e.mu.Unlock()
	if again != nil {
		e.handle(*again)
	}
}

// guard opens, matches and arms one container, or lets go of it.
func (e *Engine) guard(ctx context.Context, ct *container) error {
	if ct.cg == nil {
		cg, err := e.fs.Get(ct.id.Cgroup)
		if err != nil {
			return e.notGuarded(ct, nil, err)
		}
		e.mu.Lock()
		ct.cg = cg
		e.mu.Unlock()
	}
	u, err := ct.cg.Usage()
	if err != nil {
		return e.notGuarded(ct, nil, err)
	}
	rules, why := e.rulesFor(ct, u.BaseLimit)
	o := armOptions(rules)
	if len(why) > 0 || o == (cgroup.ArmOptions{}) {
		err := ct.cg.Disarm(ctx)
		e.leaveArmed(ct)
		e.ungranted(ct)
		return errors.Join(e.notGuarded(ct, rules, nil, why...), err)
	}
	if o.Hold && !ct.armed && e.fs.Version() == 1 {
		if err := e.budgets.arm(); err != nil {
			e.metrics.refusals.WithLabelValues("armed").Inc()
			return errors.Join(e.notGuarded(ct, rules, nil, "not armed: "+err.Error()), ct.cg.Disarm(ctx))
		}
		ct.armed = true
	}
	st, err := ct.cg.Arm(ctx, o)
	if err != nil {
		e.leaveArmed(ct)
		return e.notGuarded(ct, rules, err)
	}
	e.log.Debug("container guarded", "container", ct.id.String(), "cgroup", ct.id.Cgroup,
		"state", st.State, "freezer", st.Freezer)
	return e.notGuarded(ct, rules, nil, st.Missing...)
}

// notGuarded notes the rules that match and what keeps them from working.
func (e *Engine) notGuarded(ct *container, rules []*policy.Rule, err error, why ...string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	ct.rules, ct.why, ct.failed = rules, why, err != nil
	ct.triggers = policy.ByTrigger(rules)
	if err != nil {
		ct.why = append(ct.why, err.Error())
	}
	return err
}

func (e *Engine) leaveArmed(ct *container) {
	if ct.armed {
		e.budgets.disarm()
		ct.armed = false
	}
}

// rulesFor is the winner of each trigger, and why they are not to be applied
// now, if they are not.
func (e *Engine) rulesFor(ct *container, limit policy.Limit) ([]*policy.Rule, []string) {
	if why, reserved := e.fs.Reserved(ct.id.Cgroup); reserved {
		return nil, []string{"never matched: " + why}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	rules := e.policy.For(ct.id, limit)
	switch {
	case len(rules) == 0:
		return nil, nil
	case e.disarmedAll:
		return rules, []string{"disarmed by an operator until reload"}
	case e.disarmed[ct.id.Cgroup]:
		return rules, []string{"disarmed by an operator until reload"}
	case time.Now().Before(ct.quiet):
		return rules, []string{fmt.Sprintf("given back to the kernel; guarded again within %s", rearmAfter)}
	}
	return rules, nil
}

// armOptions is what the rules together need of the guard.
func armOptions(rules []*policy.Rule) cgroup.ArmOptions {
	o := cgroup.ArmOptions{NotAtLimit: true}
	for _, r := range rules {
		if r.Mode == policy.Off {
			continue
		}
		o.Sample = true // for the recorder, and for what guards shows
		enforce := r.Mode == policy.Enforce
		o.Hold = o.Hold || enforce && r.Trigger.Hold
		o.AlwaysGuard = o.AlwaysGuard || enforce && r.Guard == policy.GuardAlways
		switch r.Trigger.On {
		case policy.OnLimit:
			o.Observe = o.Observe || !enforce
			o.NotAtLimit = o.NotAtLimit && !enforce
		case policy.OnPressure:
			o.PressureOver, o.PressurePercent = r.Trigger.Over, max(r.Trigger.Some, r.Trigger.Full)
			o.PressureFull = r.Trigger.Full > 0
		}
	}
	return o
}

// forget lets go of a container that no source knows any more, or whose cgroup
// is gone.
func (e *Engine) forget(ctx context.Context, ct *container) {
	e.mu.Lock()
	if e.containers[ct.id.Cgroup] == ct {
		delete(e.containers, ct.id.Cgroup)
		if len(ct.from) > 0 && e.fs.Exists(ct.id.Cgroup) {
			// A new directory stands at the path; its report came before the
			// old one was let go of.
			next := newContainer(ct.id)
			next.from = ct.from
			e.containers[ct.id.Cgroup] = next
			e.queue.add(ct.id.Cgroup)
		}
	}
	e.mu.Unlock()
	e.leaveArmed(ct)
	e.ungranted(ct)
	if ct.cg == nil {
		return
	}
	if err := ct.cg.Disarm(ctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
		e.log.Warn("disarm", "cgroup", ct.id.Cgroup, "error", err)
	}
	if err := ct.cg.Close(); err != nil && !errors.Is(err, cgroup.ErrGone) {
		e.log.Warn("close", "cgroup", ct.id.Cgroup, "error", err)
	}
}
