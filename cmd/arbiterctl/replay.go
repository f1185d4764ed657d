package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

func (a *app) replay() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replay CASE", Args: nArgs(1, 1),
		Short: "Decide a past case again, under another policy",
		Long: `Decide a past case again from the facts that were recorded, under the policy
directories of this node or those of --policy, and print how the decision
differs: lines that only the recorded one has begin with "-", lines that only
the new one has with "+".

CASE is a case's id, or the path of a case.json or of a directory that
'arbiterctl get' wrote.`,
		Example: `  arbiterctl replay 7f3a --policy ./policy.d
  arbiterctl replay ./20261121T061502-7f3a/case.json --policy ./policy.d`,
	}
	dirs := policyFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, _, err := a.caseOf(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		p, err := a.loadPolicy(*dirs)
		if err != nil {
			return err
		}
		return a.printReplay(c.Record, policy.Replay(p, c.Facts))
	}
	return cmd
}

// caseOf reads a case: a path from the disk (dir is then where it lies),
// everything else from the daemon.
func (a *app) caseOf(ctx context.Context, name string) (c *casebook.Full, dir string, err error) {
	if !strings.ContainsRune(name, filepath.Separator) && !strings.HasSuffix(name, ".json") {
		c, err := a.fetchCase(ctx, name)
		return c, "", err
	}
	dir = name
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		dir = filepath.Dir(name)
	} else if err == nil {
		name = filepath.Join(name, "case.json")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	r, err := casebook.ReadRecord(f)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	c = &casebook.Full{Record: r}
	if t, err := os.Open(filepath.Join(dir, "timeline.jsonl")); err == nil {
		defer t.Close()
		if c.Timeline, _, err = casebook.ParseTimeline(t); err != nil {
			return nil, "", fmt.Errorf("%s: %w", t.Name(), err)
		}
	}
	return c, dir, nil
}

func (a *app) printReplay(r *casebook.Record, now policy.Replayed) error {
	was := append([]string{policy.RuleLine(r.Rule, r.Mode)}, r.Plan...)
	diff := policy.DiffPlans(was, now.Lines())
	if a.output == "json" {
		return a.json(struct {
			Case   string   `json:"case"`
			Same   bool     `json:"same"`
			Was    []string `json:"was"`
			Now    []string `json:"now"`
			Misses []string `json:"misses"` // why rules before the new one are not for the container
		}{r.ID, diff == "", was, now.Lines(), misses(now)})
	}
	if diff == "" {
		return a.println(clean("the decision is the same: " + was[0]))
	}
	f := &fields{w: a.stdout}
	f.line("case", "%s, %s", r.ID, r.Facts.Container)
	f.line("recorded", "%s (%s)", r.Rule, r.RulePos)
	if now.Rule != nil {
		f.line("now", "%s (%s)", now.Rule.Name, now.Rule.Pos)
	} else {
		f.line("now", "no rule is for it")
	}
	f.section("decision")
	for l := range strings.Lines(diff) {
		f.item(strings.TrimSuffix(l, "\n"))
	}
	if m := misses(now); len(m) > 0 {
		f.section("not these")
		for _, l := range m {
			f.item(l)
		}
	}
	return f.err
}

func misses(r policy.Replayed) []string {
	out := []string{}
	for _, m := range r.Misses {
		out = append(out, fmt.Sprintf("%s: %s: %s", m.Rule.Pos, m.Rule.Name, m))
	}
	return out
}
