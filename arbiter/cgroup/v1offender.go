package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const (
	// offenderLooks is how often, and offenderPause how long after another,
	// sleepers are looked for: the notification comes before they sleep.
	offenderLooks = 20
	offenderPause = time.Millisecond
)

// findOffender tells which guarded container hit the limit of its ancestor n,
// or hands n to the kernel if it was none of them: whoever sleeps there is one
// who hit it.
func (n *node) findOffender(at time.Time, guarded []*v1, looks int) {
	asleep, others := n.sleepers(guarded)
	switch {
	case len(asleep) > 0:
		fastest(asleep).tellLimit(n, at, fmt.Sprintf("the limit of %s is hit; of %d guarded containers that sleep there this one grew most", n.dir.path, len(asleep)))
	case others:
		n.handOver(guarded, at)
	case looks > 0:
		n.fs.watch.after(offenderPause, func() { n.findOffender(at, guarded, looks-1) })
	case n.stillUnderOOM() && len(guarded) > 0:
		fastest(guarded).tellLimit(n, at, fmt.Sprintf("the limit of %s is hit; nobody can be seen asleep, this guarded container grew most", n.dir.path))
	}
}

func (n *node) stillUnderOOM() bool {
	o, err := n.dir.oomControl()
	return err == nil && o.underOOM
}

// sleepers lists the guarded containers below n in which a task sleeps at a
// limit, and tells whether any other task does.
func (n *node) sleepers(guarded []*v1) (asleep []*v1, others bool) {
	pids, err := n.dir.pids()
	if err != nil {
		return nil, false
	}
	for _, pid := range pids {
		if !n.fs.asleep(pid) {
			continue
		}
		m, err := readMembership(n.fs.proc, pid)
		if err != nil {
			continue
		}
		i := slices.IndexFunc(guarded, func(c *v1) bool { return within(m.memory, c.path) })
		switch {
		case i < 0:
			others = true
		case !slices.Contains(asleep, guarded[i]):
			asleep = append(asleep, guarded[i])
		}
	}
	return asleep, others
}

// fastest is the container that grew most since it was last looked at.
func fastest(all []*v1) *v1 {
	return slices.MaxFunc(all, func(a, b *v1) int {
		return int(int64(a.growth()) - int64(b.growth()))
	})
}

func (c *v1) growth() uint64 {
	usage, err := c.self.dir.number(fileUsage)
	if err != nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return usage - min(c.mark, usage)
}

// oomSleep is where the kernel's page fault path waits for memory to be freed.
const oomSleep = "mem_cgroup_oom_synchronize"

// asleep reports whether a thread of the process sleeps at a limit.
func (s *FS) asleep(pid int) bool {
	for _, tid := range threads(s.proc, pid) {
		b, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(pid), "task", strconv.Itoa(tid), "wchan"))
		if err == nil && string(b) == oomSleep {
			return true
		}
	}
	return false
}

// handOver leaves n's limit to the kernel, since whoever hit it is not ours to
// hold: the flag goes, the kernel kills, and the flag comes back.
func (n *node) handOver(guarded []*v1, at time.Time) {
	if !n.mu.TryLock() {
		n.fs.watch.after(busyRetry, func() { n.limitHit(at) })
		return
	}
	defer n.mu.Unlock()
	if n.rec == nil || n.rec.Fields[fileOOMControl] == nil || n.handedOver {
		return
	}
	if err := n.dir.write(fileOOMControl, "0"); err != nil {
		n.fs.log.Warn("hand a limit to the kernel", "cgroup", n.dir.path, "error", err)
		return
	}
	n.handedOver = true
	n.fs.changed("handed over", n.dir.path)
	for _, c := range guarded {
		c.emit(Event{Kind: EventNotOurs, At: at, Level: n.dir.path, Why: "the limit was hit by a process that is not guarded; the kernel decides"})
	}
	n.takeOverLater(time.Now().Add(handOverWait))
}

// takeOverLater sets the flag again once nobody waits for memory, or at the
// deadline.
func (n *node) takeOverLater(deadline time.Time) {
	n.fs.watch.after(recheckAfter, func() {
		o, err := n.dir.oomControl()
		if err == nil && o.underOOM && time.Now().Before(deadline) {
			n.takeOverLater(deadline)
			return
		}
		if !n.mu.TryLock() {
			n.takeOverLater(deadline)
			return
		}
		defer n.mu.Unlock()
		n.handedOver = false
		if n.rec == nil || n.rec.Fields[fileOOMControl] == nil {
			return // disarmed meanwhile
		}
		n.fs.flags.Lock()
		defer n.fs.flags.Unlock()
		if err := n.dir.write(fileOOMControl, "1"); err != nil {
			n.fs.log.Warn("take a limit back from the kernel", "cgroup", n.dir.path, "error", err)
			return
		}
		n.fs.changed("flag set", n.dir.path)
		for c := range n.members {
			c.forgive()
		}
	})
}
