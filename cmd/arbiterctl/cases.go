package main

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

type caseFilter struct {
	rule, outcome, trigger, namespace, container, since, until string
	open                                                       bool
	limit                                                      int
}

func (a *app) cases() *cobra.Command {
	var f caseFilter
	cmd := &cobra.Command{
		Use: "cases", Args: nArgs(0, 0),
		Short: "List past and open cases, the newest first",
		Example: `  arbiterctl cases --since 24h
  arbiterctl cases --namespace 'shop-*' --outcome kill
  arbiterctl cases --container shop-eu/checkout-7d9/app -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(cmd, a.now())
			if err != nil {
				return err
			}
			var l casebook.Listing
			if err := a.api().Get(cmd.Context(), "/v1/cases", q, &l); err != nil {
				return err
			}
			return a.printCases(l, f.limit)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.rule, "rule", "", "only cases of this rule")
	fs.StringVar(&f.outcome, "outcome", "", "only with this outcome: kill, resume, none, kernel or gone")
	fs.StringVar(&f.trigger, "trigger", "", "only of this trigger: limit, usage, pressure, growth or manual")
	fs.StringVarP(&f.namespace, "namespace", "n", "", "only of namespaces that match this glob")
	fs.StringVarP(&f.container, "container", "c", "", "only of containers whose name, namespace/pod/name or cgroup matches this glob, or whose id begins so")
	fs.StringVar(&f.since, "since", "", "only opened since then: 24h, 7d, 2026-11-21 or 2026-11-21T06:15:02Z")
	fs.StringVar(&f.until, "until", "", "only opened until then")
	fs.BoolVar(&f.open, "open", false, "only cases that are not closed")
	fs.IntVar(&f.limit, "limit", 100, "at most this many; 0 for all")
	return cmd
}

// query is the filter as the API takes it.
func (f caseFilter) query(cmd *cobra.Command, now time.Time) (url.Values, error) {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	if err := oneOf(cmd, "--outcome", f.outcome, "kill", "resume", "none", "kernel", "gone"); err != nil {
		return nil, err
	}
	if err := oneOf(cmd, "--trigger", f.trigger, "limit", "usage", "pressure", "growth", "manual"); err != nil {
		return nil, err
	}
	set("rule", f.rule)
	set("outcome", f.outcome)
	set("trigger", f.trigger)
	set("namespace", f.namespace)
	set("container", f.container)
	for key, value := range map[string]string{"since": f.since, "until": f.until} {
		if value == "" {
			continue
		}
		t, err := parseTime(value, now)
		if err != nil {
			return nil, usagef(cmd, "--%s %q: want a duration (24h), a day (2026-11-21) or a time (2026-11-21T06:15:02Z)", key, value)
		}
		set(key, t.UTC().Format(time.RFC3339))
	}
	if f.open {
		set("open", "1")
	}
	if f.limit < 0 {
		return nil, usagef(cmd, "--limit %d: want 0 or more", f.limit)
	}
	set("limit", strconv.Itoa(f.limit))
	return q, nil
}

func oneOf(cmd *cobra.Command, flag, value string, choices ...string) error {
	if value == "" {
		return nil
	}
	var list strings.Builder
	for _, c := range choices {
		if c == value {
			return nil
		}
		list.WriteString(", " + c)
	}
	return usagef(cmd, "%s %q: want one of %s", flag, value, list.String()[2:])
}

// parseTime reads a time, a day (UTC), or how long ago.
func parseTime(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	d, err := policy.ParseDuration(s)
	return now.Add(-d), err
}

func (a *app) printCases(l casebook.Listing, limit int) error {
	for _, why := range l.Broken {
		a.hint("not all cases can be read: %s", clean(why))
	}
	if a.output == "json" {
		return a.json(l.Cases)
	}
	if len(l.Cases) == 0 {
		a.hint("no cases")
		return nil
	}
	heads := []string{"CASE", "OPENED", "CONTAINER", "RULE", "TRIGGER", "OUTCOME", "HELD", "ARTIFACTS"}
	if a.output == "wide" {
		heads = append(heads, "TIME", "OPERATOR", "WHY")
	}
	t := newTable(a.stdout, heads...)
	for _, r := range l.Cases {
		row := []string{r.ID, a.ago(r.Opened), r.Facts.Container.String(), r.Rule, string(r.Facts.Trigger),
			outcome(r), heldFor(a, r), artifactSum(r.Artifacts)}
		if a.output == "wide" {
			row = append(row, stamp(r.Opened), r.Operator, oneLine(r.Why))
		}
		t.row(row...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if limit > 0 && len(l.Cases) == limit {
		a.hint("\nthe newest %d are shown: --limit 0 shows all", limit)
	}
	return nil
}

// outcome is what came out, or the state of a case that is still open.
func outcome(r *casebook.Record) string {
	if r.Closed.IsZero() {
		return "open: " + r.State
	}
	if r.Mode == policy.Observe {
		return string(r.Outcome) + " (observed)"
	}
	return string(r.Outcome)
}

func heldFor(a *app, r *casebook.Record) string {
	switch {
	case r.HeldFor > 0:
		return short(r.HeldFor)
	case !r.HeldAt.IsZero() && r.Closed.IsZero():
		return short(whole(a.now().Sub(r.HeldAt)))
	}
	return ""
}

// artifactSum is how many artifacts there are and how much they take.
func artifactSum(list []casebook.Artifact) string {
	if len(list) == 0 {
		return ""
	}
	var size int64
	for _, a := range list {
		size += a.Size
	}
	return strconv.Itoa(len(list)) + ", " + human(uint64(size))
}
