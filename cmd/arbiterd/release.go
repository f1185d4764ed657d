package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
)

func releaseCommand(o *options) *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use:   "release [--all | PATH]",
		Short: "let go of what a daemon that died held or armed",
		Long: "release undoes what the undo records on the cgroups say: limits, flags,\n" +
			"scores, freezers. It needs nothing but the cgroup tree, and may be run at\n" +
			"any time: what a live daemon owns is skipped and named.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return usageError{errors.New("release takes --all or one cgroup path, as in /system.slice/x.service")}
			}
			r := cgroup.ReleaseOptions{All: all, Force: force}
			if len(args) == 1 {
				r.Path = args[0]
			}
			return release(cmd, o, r)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "the whole tree")
	cmd.Flags().BoolVar(&force, "force", false, "also what a live daemon owns")
	return cmd
}

func release(cmd *cobra.Command, o *options, r cgroup.ReleaseOptions) error {
	fs, err := cgroup.Open(o.cgroupRoot, hclog.New(&hclog.LoggerOptions{Name: "arbiterd", Level: hclog.Warn}))
	if err != nil {
		return err
	}
	defer fs.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), releaseWithin)
	defer cancel()
	report, err := fs.Release(ctx, r)
	out := cmd.OutOrStdout()
	for _, line := range report.Lines() {
		fmt.Fprintln(out, line)
	}
	if err == nil && len(report.Lines()) == 0 {
		fmt.Fprintln(out, "nothing to release")
	}
	if err == nil && len(report.Left) > 0 {
		return errReported
	}
	return err
}
