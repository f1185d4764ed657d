package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// The curve's drawing, in SVG units.
const (
	curveWidth  = 720
	curveHeight = 160
	maxPoints   = 5000
)

// curve is the container's memory before the trigger, as an SVG polyline.
type curve struct {
	Width, Height int
	Usage         string // points of the line
	Unreclaimable string
	LimitY        float64 // where the limit is; below 0: not known
	From, To      string
	Top           string // the figure at the upper edge
}

type point struct {
	at           time.Time
	usage, stuck uint64
}

// parseCurve reads memory-curve.csv: time, usage_bytes, unreclaimable_bytes.
// With less than two points there is nothing to draw.
func parseCurve(data []byte, limit uint64) *curve {
	points := readPoints(strings.NewReader(string(data)))
	if len(points) < 2 {
		return nil
	}
	first, last := points[0].at, points[len(points)-1].at
	span := last.Sub(first).Seconds()
	top := max(limit, 1)
	for _, p := range points {
		top = max(top, p.usage)
	}
	if span <= 0 {
		return nil
	}
	y := func(n uint64) float64 { return curveHeight - float64(n)/float64(top)*(curveHeight-10) }
	var usage, stuck strings.Builder
	for _, p := range points {
		x := p.at.Sub(first).Seconds() / span * curveWidth
		fmt.Fprintf(&usage, "%.1f,%.1f ", x, y(p.usage))
		fmt.Fprintf(&stuck, "%.1f,%.1f ", x, y(min(p.stuck, top)))
	}
	c := &curve{
		Width: curveWidth, Height: curveHeight, Usage: usage.String(), Unreclaimable: stuck.String(),
		LimitY: -1, From: clock(first), To: clock(last), Top: policy.FormatBytes(top),
	}
	if limit > 0 {
		c.LimitY = y(limit)
	}
	return c
}

// readPoints reads as many points as make sense, in order of time.
func readPoints(r io.Reader) []point {
	in := csv.NewReader(r)
	in.FieldsPerRecord = 3
	var points []point
	for len(points) < maxPoints {
		row, err := in.Read()
		if err != nil {
			return points
		}
		at, err1 := time.Parse(time.RFC3339, row[0])
		usage, err2 := strconv.ParseUint(row[1], 10, 63)
		stuck, err3 := strconv.ParseUint(row[2], 10, 63)
		if err1 != nil || err2 != nil || err3 != nil {
			continue // the heading
		}
		if n := len(points); n > 0 && at.Before(points[n-1].at) {
			continue
		}
		points = append(points, point{at, usage, stuck})
	}
	return points
}
