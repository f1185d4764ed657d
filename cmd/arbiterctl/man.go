package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// man writes the man pages; the build calls it.
func (a *app) man() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Args: nArgs(1, 1), Hidden: true,
		Short: "Write the man pages into a directory",
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Title: "ARBITERCTL", Section: "8", Source: "Arbiter", Manual: "Arbiter"}, args[0])
		},
	}
}
