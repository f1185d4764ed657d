package main

import (
	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) disarm() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "disarm TARGET | --all", Args: nArgs(0, 1),
		Short: "The panic switch: let go and stop guarding until reload",
		Long: `Let go of a container, or of all, and stop guarding: every limit, flag and score
is put back, what is held goes on, and the kernel decides as it does without
Arbiter. It lasts until 'arbiterctl reload'.

If the daemon itself does not answer, 'arbiterd release --all' does the same
without it.`,
		Example: `  arbiterctl disarm shop-eu/checkout-7d9/app
  arbiterctl disarm --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := api.DisarmRequest{All: all}
			if len(args) == 1 {
				r.Target = args[0]
			}
			if all == (r.Target != "") {
				return usagef(cmd, "name a target or give --all, and not both")
			}
			return a.done(a.api().Disarm(cmd.Context(), r))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "let go of everything")
	return cmd
}
