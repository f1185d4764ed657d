package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func checkCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "read the configuration and the policy as the daemon would, and say what is wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(o.config)
			if err != nil {
				return err
			}
			l, err := c.loadPolicy()
			if err != nil {
				return err
			}
			for _, w := range l.Warnings {
				fmt.Fprintln(cmd.OutOrStdout(), w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d rules from %d files\n", len(l.Policy.Rules), len(l.Files))
			return nil
		},
	}
}
