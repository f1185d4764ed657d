// Package report writes the HTML report of a case: one file that loads nothing
// from anywhere, fit to be attached to a ticket. Everything in it that comes
// from a container is hostile and is escaped by html/template.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// MaxFile bounds what the report takes of one artifact, in bytes.
const MaxFile = 8 << 20

// maxText bounds what it shows of a text.
const maxText = 256 << 10

// curveFile is the artifact with the memory before the trigger.
const curveFile = "memory-curve.csv"

// A File is an artifact that the report shows, up to MaxFile bytes of it.
type File struct {
	Name string
	Data []byte
}

// Shows reports whether an artifact is of a kind that the report shows.
func Shows(a casebook.Artifact) bool {
	return !a.Partial && (strings.HasSuffix(a.Name, ".txt") || a.Name == curveFile || a.Name == snapshotFile)
}

//go:embed report.html
var page string

// view is what the page is made of.
type view struct {
	*casebook.Full
	Limit    string
	Snapshot *snapshot
	Curve    *curve
	Texts    []text
}

type text struct {
	Name string
	Body string
	Cut  bool
}

// Write writes the report of a case. Files are the artifacts that Shows picks.
func Write(w io.Writer, c *casebook.Full, files []File) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"bytes": humanSize, "size": policy.FormatBytes, "stamp": stamp, "clock": clock, "dur": duration, "pairs": pairs,
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	v := view{Full: c, Limit: "none"}
	if n, ok := c.Facts.Limit.Bytes(); ok {
		v.Limit = policy.FormatBytes(n)
	}
	for _, f := range files {
		switch f.Name {
		case curveFile:
			limit, _ := c.Facts.Limit.Bytes()
			v.Curve = parseCurve(f.Data, limit)
		case snapshotFile:
			v.Snapshot = parseSnapshot(f.Data)
		default:
			body := f.Data[:min(len(f.Data), maxText)]
			v.Texts = append(v.Texts, text{f.Name, strings.ToValidUTF8(string(body), "?"), len(body) < len(f.Data)})
		}
	}
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("report of case %s: %w", c.ID, err)
	}
	return nil
}

func humanSize(n int64) string { return policy.FormatBytes(uint64(max(n, 0))) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func duration(d time.Duration) string {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// pairs is a map as sorted lines "key=value".
func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}
