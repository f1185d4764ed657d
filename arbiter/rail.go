package arbiter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// NodeLimits are the marks of the node rail: past them no case opens, and what
// Arbiter holds back from the node is let go.
type NodeLimits struct {
	MinAvailable uint64  // bytes; 0 picks min(5 % of memory, 512 MiB)
	MaxPressure  float64 // percent of the last 10 s in which all tasks waited for memory
}

const (
	railInterval = 500 * time.Millisecond
	// railCalm is how long the node must be well over its mark before cases
	// open again.
	railCalm = 5 * time.Second
)

// railState is the rail's memory between two looks at the node.
type railState struct {
	why   string // why it is shut, "" while it is open
	calm  time.Time
	since time.Time
}

// nodeState is what the rail judges by.
type nodeState struct {
	totalBytes     uint64
	availableBytes uint64  // MemAvailable of /proc/meminfo
	pressure       float64 // full avg10 of /proc/pressure/memory; 0 where the kernel has no PSI
}

// next decides. It shuts at the mark and opens 25 % above it, once that has
// lasted: a node at its mark would flap otherwise.
func (r railState) next(n nodeState, l NodeLimits, now time.Time) railState {
	mark := l.MinAvailable
	if mark == 0 {
		mark = min(n.totalBytes/20, 512<<20)
	}
	switch {
	case n.availableBytes < mark:
		return r.shut(now, fmt.Sprintf("the node has %s available, less than [node] min-available = %s",
			policy.FormatBytes(n.availableBytes), policy.FormatBytes(mark)))
	case l.MaxPressure > 0 && n.pressure > l.MaxPressure:
		return r.shut(now, fmt.Sprintf("the node's memory pressure (full) is %.0f%%, over [node] max-pressure = %g%%",
			n.pressure, l.MaxPressure))
	case r.why == "":
		return r
	case n.availableBytes < mark+mark/4 || l.MaxPressure > 0 && n.pressure > l.MaxPressure*3/4:
		r.calm = time.Time{}
		return r
	case r.calm.IsZero():
		r.calm = now
		return r
	case now.Sub(r.calm) < railCalm:
		return r
	}
	return railState{}
}

func (r railState) shut(now time.Time, why string) railState {
	if r.why == "" {
		r.since = now
	}
	r.why, r.calm = why, time.Time{}
	return r
}

// watchNode keeps the rail.
func (e *Engine) watchNode(ctx context.Context) {
	t := time.NewTicker(railInterval)
	defer t.Stop()
	var r railState
	for {
		if n, err := e.nodeState(); err != nil {
			e.log.Error("read the node's memory", "error", err)
		} else {
			was := r.why
			r = r.next(n, e.opts.Node, time.Now())
			e.keepRail(ctx, was, r.why)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// keepRail applies a change of the rail. While it is shut, borrowed memory is
// taken back one case a look, the oldest first, so that no more is given up
// than the node needs.
func (e *Engine) keepRail(ctx context.Context, was, now string) {
	e.mu.Lock()
	e.rail = now
	e.mu.Unlock()
	switch {
	case was == "" && now != "":
		e.log.Warn("node rail shut: no case opens", "why", now)
		if err := e.fs.DropGuards(ctx); err != nil {
			e.log.Error("drop guards", "error", err)
		}
	case was != "" && now == "":
		e.log.Info("node rail open again")
		e.fs.AllowGuards()
	}
	if now == "" {
		return
	}
	if c := e.oldestBorrower(); c != nil {
		c.post(event{kind: evGiveUp, why: now})
	}
}

// oldestBorrower is the open case that has lent memory for the longest time.
func (e *Engine) oldestBorrower() *Case {
	e.mu.Lock()
	open := make([]*Case, 0, len(e.cases))
	for _, c := range e.cases {
		open = append(open, c)
	}
	e.mu.Unlock()
	slices.SortFunc(open, func(a, b *Case) int { return strings.Compare(a.id, b.id) })
	for _, c := range open {
		if st := c.ct.cg.Status(); st.Borrowed > 0 {
			return c
		}
	}
	return nil
}

// nodeState reads /proc/meminfo and /proc/pressure/memory.
func (e *Engine) nodeState() (nodeState, error) {
	var n nodeState
	f, err := os.Open(string(e.proc) + "/meminfo")
	if err != nil {
		return n, err
	}
	defer f.Close()
	if n.totalBytes, n.availableBytes, err = parseMeminfo(f); err != nil {
		return n, err
	}
	if p, err := os.Open(string(e.proc) + "/pressure/memory"); err == nil {
		defer p.Close()
		n.pressure = parsePressureFull(p)
	}
	return n, nil
}

// parseMeminfo reads the lines "MemTotal: 24689012 kB" and "MemAvailable: ...".
func parseMeminfo(r io.Reader) (total, available uint64, err error) {
	seen := 0
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0] != "MemTotal:" && f[0] != "MemAvailable:" {
			continue
		}
		kb, err := strconv.ParseUint(f[1], 10, 54)
		if err != nil {
			return 0, 0, fmt.Errorf("parse meminfo: %s %w", f[0], err)
		}
		if f[0] == "MemTotal:" {
			total = kb << 10
		} else {
			available = kb << 10
		}
		seen++
	}
	if seen < 2 {
		return 0, 0, fmt.Errorf("parse meminfo: no MemTotal or no MemAvailable")
	}
	return total, available, sc.Err()
}

// parsePressureFull reads avg10 of the line "full avg10=0.00 avg60=...". A
// kernel without it has no pressure to tell.
func parsePressureFull(r io.Reader) float64 {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var avg float64
		if n, _ := fmt.Sscanf(sc.Text(), "full avg10=%f", &avg); n == 1 {
			return avg
		}
	}
	return 0
}
