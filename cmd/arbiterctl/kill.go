package main

import "github.com/spf13/cobra"

func (a *app) kill() *cobra.Command {
	return &cobra.Command{
		Use: "kill CASE", Args: nArgs(1, 1),
		Short: "Kill a held container now",
		Long: `Kill a held container now, and wait until it is gone. Steps that still run are
cut short; what they wrote so far stays in the case.`,
		Example: "  arbiterctl kill 7f3a",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.done(a.api().Kill(cmd.Context(), args[0]))
		},
	}
}
