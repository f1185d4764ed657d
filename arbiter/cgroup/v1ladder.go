package cgroup

import (
	"fmt"
	"strconv"
	"time"
)

// A charge that fails inside a system call (fork, MAP_POPULATE, a socket) does
// not sleep at the limit: the call fails, and the container sees an error that
// a kernel kill would have spared it. So it is better held just before. Usage
// thresholds under the limit wake us within some 0.2 ms of being crossed; they
// are the rungs of a ladder, the topmost 1 MiB below the limit and each further
// one twice as far away.
//
// A rung that is crossed is no reason by itself: plenty of containers live
// near their limit for ever, and page cache fills any limit. The container is
// held early only if both are true:
//
//   - What cannot be reclaimed would reach the limit within ladderHorizon, at
//     the slope since the rung before. Page cache is not in the way of an
//     allocation, so it does not count as used; and a slope below 1 MiB per
//     ladderHorizon (some 200 MiB/s) never counts as near.
//   - It is the first time that this rung was crossed upwards. A container
//     that came down from there again has shown that this is how it breathes.
//
// The horizon is what a hold takes: 0.2 ms for the notice, up to 0.8 ms to read
// memory.stat, and 1 to 4 ms until a busy container stands still. The kernel
// checks thresholds when pages of user memory are charged: pipes and sockets
// alone move past them unseen.
const (
	ladderHorizon = 5 * time.Millisecond
	ladderTop     = 1 << 20  // the rung nearest to the limit
	ladderBottom  = 16 << 20 // the farthest, for limits of 256 MiB and more
	ladderShare   = 16       // the farthest is at most this part of the limit
)

// A ladder is the thresholds below one limit.
type ladder struct {
	limit uint64
	rungs []rung // lowest first
	event *eventfd
	last  height // when the highest rung so far was crossed
	next  int    // the lowest rung that usage is below
}

type rung struct {
	usage uint64
	spent bool // usage went above and came down again
}

type height struct {
	at    time.Time
	usage uint64
}

// rungsFor lists the thresholds for a limit; none where it is too small for
// the kernel's accounting in batches to tell them apart.
func rungsFor(limit uint64) []rung {
	bottom := min(ladderBottom, limit/ladderShare)
	var rungs []rung
	for gap := uint64(ladderBottom); gap >= ladderTop; gap /= 2 {
		if gap <= bottom {
			rungs = append(rungs, rung{usage: limit - gap})
		}
	}
	return rungs
}

// step takes a reading and reports whether it is a new height, to be judged by
// the one before it.
func (l *ladder) step(now height) (before height, judge bool) {
	above := 0
	for above < len(l.rungs) && l.rungs[above].usage <= now.usage {
		above++
	}
	for i := above; i < l.next; i++ {
		l.rungs[i].spent = true
	}
	before, higher := l.last, above > l.next
	judge = higher && !l.rungs[above-1].spent
	if higher {
		l.last = now
	}
	l.next = above
	return before, judge
}

// near judges a new height. unreclaimable is usage without page cache.
func (l *ladder) near(before, now height, unreclaimable uint64) (why string, near bool) {
	took := now.at.Sub(before.at)
	if before.at.IsZero() || took <= 0 || now.usage <= before.usage || unreclaimable > now.usage {
		return "", false
	}
	grown := now.usage - before.usage
	left := l.limit - min(unreclaimable, l.limit)
	// left/grown*took is the time to the limit; in floating point, since the
	// product does not fit into 64 bits.
	eta := time.Duration(float64(left) / float64(grown) * float64(took))
	if eta > ladderHorizon {
		return "", false
	}
	return fmt.Sprintf("%d KiB below the limit in what cannot be reclaimed, and %d KiB more in the last %v: at the limit in %v",
		left>>10, grown>>10, took.Round(time.Microsecond), eta.Round(time.Microsecond)), true
}

// setLadder puts thresholds below the limit of n in place of those it has. The
// kernel waits for a grace period (some 10 ms) for each, so that happens in the
// background, one node after the other. n.mu is held.
func (n *node) setLadder(shown limits) {
	if n.ladderFor == shown.memory {
		return
	}
	n.ladder.close()
	n.ladder, n.ladderFor = nil, shown.memory
	if shown.memory < noLimitBytes && len(rungsFor(shown.memory)) > 0 {
		n.fs.background.add(func() { n.buildLadder(shown.memory) })
	}
}

// buildLadder registers the thresholds for a limit, unless it changed meanwhile.
func (n *node) buildLadder(limit uint64) {
	if !n.wantsLadder(limit) {
		return
	}
	l, err := n.newLadder(limit)
	if err != nil {
		n.fs.log.Debug("no usage thresholds", "cgroup", n.dir.path, "error", err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.oom == nil || n.ladderFor != limit || n.ladder != nil {
		l.close()
		return
	}
	n.ladder = l
}

func (n *node) wantsLadder(limit uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.oom != nil && n.ladderFor == limit && n.ladder == nil
}

func (n *node) newLadder(limit uint64) (*ladder, error) {
	l := &ladder{limit: limit, rungs: rungsFor(limit)}
	usage, err := n.dir.number(fileUsage)
	if err != nil {
		return nil, err
	}
	l.step(height{time.Now(), usage})
	for i, r := range rungsFor(limit) { // l's own are in use once the first is registered
		args := strconv.FormatUint(r.usage, 10)
		if i == 0 {
			l.event, err = n.fs.newEventfd(n.dir, fileUsage, args, func() { n.climbed(l) })
		} else {
			err = l.event.register(n.dir, fileUsage, args)
		}
		if err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *ladder) close() {
	if l != nil {
		l.event.close()
	}
}

// climbed runs when usage crossed a threshold of l, in either direction.
func (n *node) climbed(l *ladder) {
	usage, err := n.dir.number(fileUsage)
	if err != nil {
		return
	}
	now := height{time.Now(), usage}
	before, judge := l.step(now)
	guarded := n.membersOf((*v1).holds)
	if judge && len(guarded) > 0 {
		n.judge(l, before, now, fastest(guarded))
	}
	for _, c := range guarded {
		c.lookAt()
	}
}

// judge tells that the limit of n is as good as hit by c, if c is the one that
// grew: at an ancestor it can be somebody who is not guarded.
func (n *node) judge(l *ladder, before, now height, c *v1) {
	if now.usage <= before.usage || c.growth() < (now.usage-before.usage)/2 || c.stopsFor(n) {
		return
	}
	stat, err := n.dir.memoryStat()
	if err != nil {
		return
	}
	why, near := l.near(before, now, now.usage-min(stat.activeFile+stat.inactiveFile, now.usage))
	if near {
		c.tellLimit(n, now.at, why)
	}
}
