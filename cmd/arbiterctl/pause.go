package main

import (
	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) pause() *cobra.Command {
	var r api.PauseRequest
	cmd := &cobra.Command{
		Use: "pause TARGET", Args: nArgs(1, 1),
		Short: "Hold a container now, whatever its memory use",
		Long: `Open a manual case: hold the container and run the steps of its rule (or of
--rule), then its verdict. TARGET is namespace/pod/container, a container's id
or a cgroup's path.`,
		Example: `  arbiterctl pause shop-eu/checkout-7d9/app
  arbiterctl pause /system.slice/postgresql.service --rule hold-for-operator`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Target = args[0]
			return a.done(a.api().Pause(cmd.Context(), r))
		},
	}
	cmd.Flags().StringVar(&r.Rule, "rule", "", "use this rule's steps and verdict")
	return cmd
}
