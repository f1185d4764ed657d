package arbiter

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
)

// RecorderOptions say how much of a container's past memory is kept.
type RecorderOptions struct {
	Interval time.Duration // at least between two points
	Window   time.Duration
}

// recordFrom is the share of the limit above which usage is recorded: an idle
// node keeps no curves.
const recordFrom = 0.5

// curve is the recent past of a container's memory.
type curve struct {
	points []point // in order of time
}

// point is one sample, 24 bytes.
type point struct {
	at            int64 // Unix milliseconds
	usage         uint64
	unreclaimable uint64
}

// add keeps a sample if it is due, and forgets what is older than the window.
func (c *curve) add(at time.Time, u cgroup.Usage, o RecorderOptions) {
	limit, ok := u.BaseLimit.Bytes()
	if !ok || float64(u.Current) < recordFrom*float64(limit) {
		return
	}
	now := at.UnixMilli()
	if n := len(c.points); n > 0 && now-c.points[n-1].at < o.Interval.Milliseconds() {
		return
	}
	old := 0
	for old < len(c.points) && now-c.points[old].at > o.Window.Milliseconds() {
		old++
	}
	if old > 0 {
		c.points = append(c.points[:0], c.points[old:]...)
	}
	c.points = append(c.points, point{now, u.Current, u.Unreclaimable})
}

// keepCurve writes the container's past down among the case's artifacts, once.
func (c *Case) keepCurve() {
	c.e.mu.Lock()
	past := curve{points: slices.Clone(c.ct.curve.points)}
	c.e.mu.Unlock()
	if c.curve || len(past.points) == 0 {
		return
	}
	c.curve = true
	c.scribe.write(func() error {
		a, err := c.artifacts("recorder").Create("memory-curve.csv")
		if err != nil {
			return err
		}
		if _, err := io.WriteString(a, past.csv()); err != nil {
			a.Abort(err)
			return err
		}
		return a.Close()
	})
}

// csv is the curve as the artifact memory-curve.csv holds it.
func (c *curve) csv() string {
	var b strings.Builder
	b.WriteString("time,usage_bytes,unreclaimable_bytes\n")
	for _, p := range c.points {
		fmt.Fprintf(&b, "%s,%d,%d\n", time.UnixMilli(p.at).UTC().Format("2006-01-02T15:04:05.000Z"), p.usage, p.unreclaimable)
	}
	return b.String()
}
