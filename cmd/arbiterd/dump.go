package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/dump"
)

// dumpCommand is the helper process that writes core files: the daemon starts
// it, nobody else.
func dumpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "dump PARENT-PID", Hidden: true, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dump.Main(cmd.Context(), args, os.Stdin, os.Stdout) != 0 {
				return errReported
			}
			return nil
		},
	}
}
