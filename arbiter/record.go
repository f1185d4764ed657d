package arbiter

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// note brings the record up to date after a transition. c.mu is held.
func (c *Case) note(before state) {
	s := c.st
	c.rec.State = s.phase.String()
	c.rec.HeldAt = s.heldAt
	c.rec.Steps = append(slices.Clone(s.done), s.steps...)
	if s.rule != nil && s.rule != before.rule {
		c.rec.Rule, c.rec.RulePos, c.rec.Mode = s.rule.Name, s.rule.Pos, s.rule.Mode
		c.rec.Plan = s.plan.Lines()
	}
	if s.phase == waiting {
		c.rec.Deadline, c.rec.Then = s.until, s.wanted().Otherwise
	}
	if !s.heldAt.IsZero() {
		c.rec.TriggerToHold = s.heldAt.Sub(c.fired.at)
	}
}

// write puts the record and one line of its timeline on disk. The first write
// makes the case's directory. Without a casebook (its disk is full, say) the
// case goes on in memory.
func (c *Case) write(what string, data map[string]string, sync bool) {
	c.mu.Lock()
	rec := c.rec
	rec.Steps, rec.Artifacts = slices.Clone(rec.Steps), slices.Clone(rec.Artifacts)
	c.mu.Unlock()
	entry := casebook.Entry{At: time.Now(), What: what, Data: maps.Clone(data)}
	c.scribe.write(func() error {
		book := c.book.Load()
		if book == nil {
			var err error
			if book, err = c.e.book.Create(&rec); book == nil {
				return err
			}
			c.book.Store(book)
		}
		return errors.Join(book.Log(entry, sync), book.Save(&rec))
	})
}

// json is the case as `exec` and `webhook` hand it on.
func (c *Case) json() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := json.Marshal(c.rec)
	if err != nil {
		return []byte("{}")
	}
	return b
}

// nameOf is the container's name, "" for a plain cgroup: that one is named by
// its path.
func nameOf(c cri.Container) string {
	if c.Pod.Name == "" && c.ID == "" {
		return ""
	}
	return c.Name
}

// view is the case as pause-list shows it.
func (c *Case) view() api.Hold {
	u, _ := c.ct.cg.Usage()
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.of
	limit, _ := u.Limit.Bytes()
	h := api.Hold{
		ID: c.id, State: c.st.phase.String(), Rule: c.ruleName(), Trigger: string(c.fired.kind),
		Cgroup: id.Cgroup, Namespace: id.Pod.Namespace, Pod: id.Pod.Name, Container: nameOf(id), ContainerID: id.ID,
		HeldSince: c.st.heldAt, Deadline: c.rec.Deadline, Then: string(c.rec.Then),
		UsageBytes: u.Current, LimitBytes: limit, Progress: c.progress,
	}
	if c.st.phase == stepping && c.st.op < len(c.st.plan.Ops) {
		if i := c.st.plan.Ops[c.st.op].Step; i >= 0 {
			h.Step = c.st.plan.Steps[i].Name
		}
	}
	return h
}

// noteOf words a transition for the timeline, and tells whether it must be on
// disk before the case goes on.
func noteOf(before, now state, ev event) (what string, sync bool) {
	switch ev.kind {
	case evHeld:
		return "held", true
	case evBeside:
		return "opened beside the running container", true
	case evPlanned:
		return fmt.Sprintf("planned by rule %s", now.rule.Name), true
	case evOp:
		return opNote(before, ev), true
	case evExtend:
		return fmt.Sprintf("extended by %s by %s", ev.by, ev.who), true
	case evOperator:
		return fmt.Sprintf("%s ordered by %s", ev.verdict, ev.who), true
	case evLimitAgain:
		return "the raised limit was reached as well", false
	case evEscalate:
		return "escalated: the limit was reached", true
	case evDeadline, evWaited, evGiveUp, evThawed, evOtherwise, evFailed:
		return fmt.Sprintf("to the verdict: %s", now.why), true
	case evVerdict:
		if ev.err != nil {
			return fmt.Sprintf("verdict %s failed: %v", before.verdict, ev.err), true
		}
	}
	return "", false
}

func opNote(before state, ev event) string {
	if before.op >= len(before.plan.Ops) {
		return ""
	}
	op := before.plan.Ops[before.op]
	if op.Kind == policy.OpStep {
		return fmt.Sprintf("step %s %s", ev.step.Name, ev.step.Result)
	}
	if ev.err != nil {
		return fmt.Sprintf("%s failed: %v", op.Kind, ev.err)
	}
	return string(op.Kind)
}
