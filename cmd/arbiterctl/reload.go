package main

import "github.com/spf13/cobra"

func (a *app) reload() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Args: nArgs(0, 0),
		Short: "Read the policies again, and guard again what was disarmed",
		Long: `Read the policies again. All or nothing: with an error in any file the set in
force stays, and the error is told here and by 'arbiterctl status'.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.done(a.api().Reload(cmd.Context())) },
	}
}
