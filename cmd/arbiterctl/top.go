package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) top() *cobra.Command {
	var interval time.Duration
	var times int
	cmd := &cobra.Command{
		Use: "top", Args: nArgs(0, 0),
		Short: "Show what is held and what comes near its limit, live",
		Long: `Show what is held and the guarded containers, those nearest to their limit
first, again and again until interrupted (Ctrl-C). Without a terminal the views
are printed one after the other.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return usagef(cmd, "--interval %s: want 100ms or more", interval)
			}
			if a.output == "json" {
				return usagef(cmd, "-o json: use guards and pause-list")
			}
			return a.runTop(cmd.Context(), interval, times)
		},
	}
	cmd.Flags().DurationVarP(&interval, "interval", "d", 2*time.Second, "between two views")
	cmd.Flags().IntVarP(&times, "times", "n", 0, "end after so many views; 0 is never")
	return cmd
}

func (a *app) runTop(ctx context.Context, interval time.Duration, times int) error {
	live := isTerminal(a.stdout)
	if live {
		fmt.Fprint(a.stdout, enterScreen)
		defer fmt.Fprint(a.stdout, leaveScreen)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		view, err := a.topView(ctx)
		if ctx.Err() != nil {
			return nil // interrupted: that is how it ends
		}
		if err != nil {
			return err
		}
		if live {
			view = clearScreen + fit(a.stdout, view)
		}
		if _, err := io.WriteString(a.stdout, view); err != nil {
			return err
		}
		if n == times {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fit cuts a view to what the terminal has room for.
func fit(w io.Writer, view string) string {
	columns, rows := screenSize(w)
	lines := strings.Split(strings.TrimSuffix(view, "\n"), "\n")
	lines = lines[:min(len(lines), rows-1)]
	for i, l := range lines {
		if r := []rune(l); len(r) > columns {
			lines[i] = string(r[:columns])
		}
	}
	return strings.Join(lines, "\r\n")
}

func (a *app) topView(ctx context.Context) (string, error) {
	status, err := a.api().Status(ctx)
	if err != nil {
		return "", err
	}
	holds, err := a.api().Holds(ctx)
	if err != nil {
		return "", err
	}
	guards, err := a.api().Guards(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "arbiterd %s, %s   held %s   armed %s   borrowed %s of %s\n", status.Version,
		a.now().UTC().Format(time.TimeOnly), outOf(status.Held, status.HeldMax), outOf(status.Armed, status.ArmedMax),
		human(status.BorrowedBytes), human(status.BorrowedMax))
	for _, w := range warnings(status) {
		fmt.Fprintf(&b, "! %s\n", oneLine(w))
	}
	b.WriteByte('\n')
	if len(holds) > 0 {
		if err := a.holdTable(&b, holds); err != nil {
			return "", err
		}
		b.WriteByte('\n')
	}
	if err := topGuards(&b, guards); err != nil {
		return "", err
	}
	return b.String(), nil
}

// warnings is what on call should not overlook.
func warnings(s api.Status) []string {
	var out []string
	if s.Policy.Error != "" {
		out = append(out, "the last policy was refused: "+s.Policy.Error)
	}
	if s.NodeRail != "" {
		out = append(out, "no case opens: "+s.NodeRail)
	}
	if len(s.Disarmed) > 0 {
		out = append(out, "disarmed until reload: "+strings.Join(s.Disarmed, ", "))
	}
	for _, src := range s.Sources {
		if !src.Up {
			out = append(out, "source "+src.Name+" is down: "+src.Error)
		}
	}
	return out
}

func topGuards(w io.Writer, guards []api.Guard) error {
	guards = slices.Clone(guards)
	slices.SortStableFunc(guards, func(x, y api.Guard) int {
		return cmp.Or(cmp.Compare(secondsLeft(x), secondsLeft(y)), cmp.Compare(share(y), share(x)))
	})
	t := newTable(w, "CONTAINER", "RULE", "STATE", "USAGE/LIMIT", "GROWTH", "LIMIT IN")
	for _, g := range guards {
		t.row(identity(g.Namespace, g.Pod, g.Container, g.Cgroup), g.Rule, g.State,
			ofLimit(g.UsageBytes, g.LimitBytes), growth(g), timeToLimit(g))
	}
	return t.flush()
}

func secondsLeft(g api.Guard) float64 {
	if g.SecondsToLimit == nil || *g.SecondsToLimit < 0 {
		return math.Inf(1)
	}
	return *g.SecondsToLimit
}

func share(g api.Guard) float64 {
	if g.LimitBytes == nil || *g.LimitBytes == 0 {
		return 0
	}
	return float64(g.UsageBytes) / float64(*g.LimitBytes)
}
