package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/policy"
)

// json prints a value as indented JSON.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// hint prints what somebody at a terminal may want to know next to the answer.
// It is on stderr, so that stdout stays what scripts expect.
func (a *app) hint(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// A table is columns aligned with spaces.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, heads ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	t.row(heads...)
	return t
}

func (t table) row(cells ...string) {
	for i, c := range cells {
		if c = clean(c); c == "" {
			c = "-"
		}
		cells[i] = c
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// clean makes text from containers harmless for terminals: whatever is not
// printable is shown as an escape.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// oneLine is clean for text that must not break a table.
func oneLine(s string) string { return clean(strings.Join(strings.Fields(s), " ")) }

// short writes a duration with what matters of it: 340ms, 12s, 3m12s, 2h5m, 3d4h.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 24*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// ago tells a time from now: "12s ago", "in 41s".
func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := a.now().Sub(t)
	if d < 0 {
		return "in " + short(whole(-d))
	}
	return short(whole(d)) + " ago"
}

// whole drops what is below a second: a table that is read by people.
func whole(d time.Duration) time.Duration { return d.Truncate(time.Second) }

// stamp is a time as every log has it.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func human(n uint64) string { return policy.FormatBytes(n) }

// ofLimit is usage with its limit: "250MiB/256MiB 97%".
func ofLimit(usage uint64, limit *uint64) string {
	if limit == nil || *limit == 0 {
		return human(usage) + "/none"
	}
	return fmt.Sprintf("%s/%s %d%%", human(usage), human(*limit), uint64(float64(usage)/float64(*limit)*100))
}

// identity names a container as orders take it.
func identity(namespace, pod, container, cgroup string) string {
	if pod == "" {
		return cgroup
	}
	return namespace + "/" + pod + "/" + container
}

func (a *app) println(s string) error {
	_, err := fmt.Fprintln(a.stdout, s)
	return err
}

// done tells that an order was carried out.
func (a *app) done(d api.Done, err error) error {
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.json(d)
	}
	return a.println(clean(d.Message))
}
