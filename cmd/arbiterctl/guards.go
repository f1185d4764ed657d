package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) guards() *cobra.Command {
	return &cobra.Command{
		Use: "guards", Args: nArgs(0, 0),
		Short: "List every matched container: armed or why not, usage, growth",
		RunE: func(cmd *cobra.Command, _ []string) error {
			guards, err := a.api().Guards(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.printGuards(guards); err != nil || len(guards) > 0 {
				return err
			}
			return a.whyNoGuards(cmd.Context())
		},
	}
}

func (a *app) printGuards(guards []api.Guard) error {
	if a.output == "json" {
		return a.json(guards)
	}
	if len(guards) == 0 {
		return nil
	}
	heads := []string{"CONTAINER", "RULE", "MODE", "STATE", "USAGE/LIMIT", "GROWTH", "LIMIT IN", "NOT COVERED"}
	if a.output == "wide" {
		heads = append(heads, "FREEZER", "BORROWED", "GRANTED", "CONTAINER-ID", "CGROUP")
	}
	t := newTable(a.stdout, heads...)
	for _, g := range guards {
		row := []string{identity(g.Namespace, g.Pod, g.Container, g.Cgroup), g.Rule, g.Mode, g.State,
			ofLimit(g.UsageBytes, g.LimitBytes), growth(g), timeToLimit(g), a.missing(g)}
		if a.output == "wide" {
			row = append(row, g.Freezer, some(g.BorrowedBytes), some(g.GrantedBytes), g.ContainerID, g.Cgroup)
		}
		t.row(row...)
	}
	return t.flush()
}

// whyNoGuards tells why the list is empty.
func (a *app) whyNoGuards(ctx context.Context) error {
	s, err := a.api().Status(ctx)
	switch {
	case err != nil:
		return err
	case len(s.Disarmed) > 0:
		a.hint("nothing is guarded: disarmed until 'arbiterctl reload': %s", clean(strings.Join(s.Disarmed, ", ")))
	case s.Policy.Rules == 0:
		a.hint("nothing is guarded: the policy has no rules")
	default:
		a.hint("no rule matches any container ('arbiterctl explain TARGET' tells why)")
	}
	return nil
}

// missing is why a container is not, or not fully, guarded. The table has room
// for the first reason.
func (a *app) missing(g api.Guard) string {
	switch {
	case len(g.Missing) == 0:
		return ""
	case len(g.Missing) == 1 || a.output == "wide":
		return oneLine(strings.Join(g.Missing, "; "))
	}
	return fmt.Sprintf("%s (and %d more: -o wide)", oneLine(g.Missing[0]), len(g.Missing)-1)
}

func some(n uint64) string {
	if n == 0 {
		return ""
	}
	return human(n)
}

func growth(g api.Guard) string {
	if g.GrowthBytesPerSecond == nil {
		return ""
	}
	rate := *g.GrowthBytesPerSecond
	sign := "+"
	if rate < 0 {
		sign, rate = "-", -rate
	}
	if rate < 1 {
		return "0"
	}
	return sign + human(uint64(rate)) + "/s"
}

func timeToLimit(g api.Guard) string {
	if g.SecondsToLimit == nil || *g.SecondsToLimit < 0 {
		return ""
	}
	// Beyond a day the figure says nothing but "not soon".
	const day = 24 * 60 * 60
	if *g.SecondsToLimit > day {
		return ">1d"
	}
	return short(time.Duration(*g.SecondsToLimit * float64(time.Second)))
}
