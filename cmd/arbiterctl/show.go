package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

func (a *app) show() *cobra.Command {
	return &cobra.Command{
		Use: "show CASE", Args: nArgs(1, 1),
		Short: "Tell one case: why, what was done, when, and the artifacts",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.fetchCase(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.json(c)
			}
			return a.showCase(c)
		},
	}
}

func (a *app) showCase(c *casebook.Full) error {
	f := &fields{w: a.stdout}
	a.showHead(f, c.Record)
	if len(c.Plan) > 0 {
		f.section("plan")
	}
	for _, l := range c.Plan {
		f.item(l)
	}
	if f.err != nil {
		return f.err
	}
	if err := a.showSteps(c.Steps); err != nil {
		return err
	}
	a.showTimeline(f, c.Timeline)
	if f.err != nil {
		return f.err
	}
	if err := a.showArtifacts(c.Artifacts); err != nil {
		return err
	}
	switch {
	case c.Closed.IsZero():
		a.hint("\nnext: arbiterctl %s", orders(c.ID, c.State))
	case len(c.Artifacts) > 0:
		a.hint("\nnext: arbiterctl get %s | report %s", c.ID, c.ID)
	}
	return nil
}

// showHead prints what on call is asked first: who, why, and what became of it.
func (a *app) showHead(f *fields, r *casebook.Record) {
	ct := r.Facts.Container
	f.line("case", "%s, opened %s", r.ID, a.ago(r.Opened))
	f.line("container", "%s", ct)
	if ct.Pod.Name != "" {
		f.line("cgroup", "%s", ct.Cgroup)
	}
	if ct.Image != "" {
		f.line("image", "%s", ct.Image)
	}
	f.line("why", "%s", r.Facts.Why)
	limit := "no limit"
	if n, ok := r.Facts.Limit.Bytes(); ok {
		limit = "limit " + human(n)
		if at := r.Facts.LimitCgroup; at != "" && at != ct.Cgroup {
			limit += " at " + at
		}
	}
	f.line("memory", "%s used, %s of it not reclaimable, %s", human(r.Facts.UsageBytes), human(r.Facts.UnreclaimableBytes), limit)
	if r.Facts.Runtime != "" {
		f.line("runtime", "%s", r.Facts.Runtime)
	}
	f.line("rule", "%s (%s), %s, trigger %s", r.Rule, r.RulePos, r.Mode, r.Facts.Trigger)
	if !r.HeldAt.IsZero() {
		held := "held " + stamp(r.HeldAt)
		if r.TriggerToHold > 0 {
			held += fmt.Sprintf(", %s after the trigger", r.TriggerToHold.Round(10*time.Microsecond))
		}
		if s := heldFor(a, r); s != "" {
			held += ", for " + s
		}
		f.line("hold", "%s", held)
	}
	a.showEnd(f, r)
}

func (a *app) showEnd(f *fields, r *casebook.Record) {
	if r.Verdict != "" {
		by := ""
		if r.Operator != "" {
			by = ", ordered by " + r.Operator
		}
		f.line("verdict", "%s%s", r.Verdict, by)
	}
	if r.RaisedBytes > 0 {
		f.line("raised", "by %s", human(r.RaisedBytes))
	}
	if r.Escapes > 0 {
		f.line("escapes", "the kernel killed %d processes all the same", r.Escapes)
	}
	if r.Closed.IsZero() {
		ends := ""
		if !r.Deadline.IsZero() {
			ends = fmt.Sprintf(", %s %s at the latest", r.Then, a.ago(r.Deadline))
		}
		f.line("state", "%s%s", r.State, ends)
		return
	}
	why := ""
	if r.Why != "" {
		why = ": " + r.Why
	}
	f.line("outcome", "%s%s (%s)", r.Outcome, why, stamp(r.Closed))
}

func (a *app) showSteps(steps []casebook.StepRecord) error {
	if len(steps) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	t := newTable(a.stdout, "STEP", "RESULT", "TOOK", "SUMMARY")
	for _, s := range steps {
		took := ""
		if !s.Started.IsZero() {
			took = short(s.Elapsed)
		}
		summary := s.Summary
		for _, more := range []string{s.Why, s.Error} {
			if more != "" {
				summary = strings.TrimPrefix(summary+"; "+more, "; ")
			}
		}
		t.row(s.Name, s.Result, took, oneLine(summary))
	}
	return t.flush()
}

func (a *app) showTimeline(f *fields, entries []casebook.Entry) {
	if len(entries) > 0 {
		f.section("timeline")
	}
	for _, e := range entries {
		var text strings.Builder
		text.WriteString(oneLine(e.What))
		for _, k := range slices.Sorted(maps.Keys(e.Data)) {
			text.WriteString("  " + oneLine(k+"="+e.Data[k]))
		}
		f.item(e.At.UTC().Format("15:04:05.000") + "  " + text.String())
	}
}

func (a *app) showArtifacts(list []casebook.Artifact) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	heads := []string{"ARTIFACT", "STEP", "SIZE", "NOTE"}
	if a.output == "wide" {
		heads = append(heads, "SHA256")
	}
	t := newTable(a.stdout, heads...)
	for _, x := range list {
		row := []string{x.Name, x.Step, human(uint64(max(x.Size, 0))), oneLine(x.Why)}
		if a.output == "wide" {
			row = append(row, x.SHA256)
		}
		t.row(row...)
	}
	return t.flush()
}

// fetchCase reads a case from the daemon.
func (a *app) fetchCase(ctx context.Context, id string) (*casebook.Full, error) {
	var c casebook.Full
	if err := a.api().Get(ctx, "/v1/cases/"+url.PathEscape(id), nil, &c); err != nil {
		return nil, err
	}
	if c.Record == nil {
		return nil, fmt.Errorf("case %s: the daemon sent no record", id)
	}
	return &c, nil
}
