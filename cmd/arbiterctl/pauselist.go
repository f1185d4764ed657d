package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) pauseList() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "pause-list", Aliases: []string{"ps", "list"}, Args: nArgs(0, 0),
		Short: "List the containers that are held now",
		Long: `List the containers that are held now: case, container, rule, trigger, the step
that runs, how long it has stood still, when that ends and in what, and usage.

With -w the list is printed again at each change, until interrupted; with
-o json then, one array a line.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchHolds(cmd.Context())
			}
			holds, err := a.api().Holds(cmd.Context())
			if err != nil {
				return err
			}
			return a.printHolds(holds)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on and print the list again at each change")
	return cmd
}

func (a *app) printHolds(holds []api.Hold) error {
	if a.output == "json" {
		return a.json(holds)
	}
	if len(holds) == 0 {
		a.hint("nothing is held")
		return nil
	}
	if err := a.holdTable(a.stdout, holds); err != nil {
		return err
	}
	a.hint("\nnext: arbiterctl show %s | %s", holds[0].ID, orders(holds[0].ID, holds[0].State))
	return nil
}

// orders are the commands that may be given about an open case. Only a case
// that waits for an operator can be extended.
func orders(id, state string) string {
	text := fmt.Sprintf("resume %s --raise 25%% | kill %s", id, id)
	if state == "waiting" {
		text += fmt.Sprintf(" | extend %s 10m", id)
	}
	return text
}

func (a *app) holdTable(w io.Writer, holds []api.Hold) error {
	heads := []string{"CASE", "CONTAINER", "RULE", "TRIGGER", "STEP", "HELD", "ENDS", "USAGE/LIMIT"}
	if a.output == "wide" {
		heads = append(heads, "STATE", "SINCE", "PROGRESS", "CONTAINER-ID", "CGROUP")
	}
	t := newTable(w, heads...)
	for _, h := range holds {
		row := []string{h.ID, identity(h.Namespace, h.Pod, h.Container, h.Cgroup), h.Rule, h.Trigger,
			cmp.Or(h.Step, h.State), short(whole(a.now().Sub(h.HeldSince))), a.ends(h), ofLimit(h.UsageBytes, &h.LimitBytes)}
		if a.output == "wide" {
			row = append(row, h.State, stamp(h.HeldSince), h.Progress, h.ContainerID, h.Cgroup)
		}
		t.row(row...)
	}
	return t.flush()
}

// ends tells when a hold ends at the latest, and in what.
func (a *app) ends(h api.Hold) string {
	then := cmp.Or(h.Then, "?")
	if h.Deadline.IsZero() {
		return then
	}
	left := h.Deadline.Sub(a.now())
	if left < 0 {
		return then + " due"
	}
	return then + " in " + short(whole(left))
}

func (a *app) watchHolds(ctx context.Context) error {
	enc := json.NewEncoder(a.stdout)
	last := ""
	err := a.api().WatchHolds(ctx, func(holds []api.Hold) error {
		key := watchKey(holds)
		if key == last && !isTerminal(a.stdout) {
			return nil
		}
		last = key
		if a.output == "json" {
			return enc.Encode(holds)
		}
		return a.redraw(holds)
	})
	if errors.Is(err, context.Canceled) {
		return nil // interrupted: that is how a watch ends
	}
	return err
}

// redraw prints the list anew: in the same place for somebody who watches,
// below the last one for a file.
func (a *app) redraw(holds []api.Hold) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s UTC, %s held\n", a.now().UTC().Format(time.TimeOnly), count(len(holds), "container"))
	if len(holds) > 0 {
		if err := a.holdTable(&b, holds); err != nil {
			return err
		}
	}
	view := b.String()
	if isTerminal(a.stdout) {
		view = clearScreen + fit(a.stdout, view) + "\r\n"
	}
	_, err := io.WriteString(a.stdout, view)
	return err
}

// watchKey tells two lists apart by what is worth printing again.
func watchKey(holds []api.Hold) string {
	var key strings.Builder
	for _, h := range holds {
		key.WriteString(h.ID + " " + h.State + " " + h.Step + " " + h.Then + " " + stamp(h.Deadline) + "\n")
	}
	return key.String() + "."
}
