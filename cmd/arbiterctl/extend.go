package main

import (
	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/policy"
)

func (a *app) extend() *cobra.Command {
	return &cobra.Command{
		Use: "extend CASE DURATION", Args: nArgs(2, 2),
		Short:   "Hold a container for longer",
		Example: "  arbiterctl extend 7f3a 10m",
		RunE: func(cmd *cobra.Command, args []string) error {
			if d, err := policy.ParseDuration(args[1]); err != nil {
				return usagef(cmd, "%w", err)
			} else if d <= 0 {
				return usagef(cmd, "%q: want more than nothing", args[1])
			}
			return a.done(a.api().Extend(cmd.Context(), args[0], api.ExtendRequest{By: args[1]}))
		},
	}
}
