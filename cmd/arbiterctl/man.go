package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// man writes the man pages; `make install` calls it.
func (a *app) man() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man --dir DIR", Args: nArgs(0, 0), Hidden: true,
		Short: "Write the man pages into a directory",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usagef(cmd, "give --dir")
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Title: "ARBITERCTL", Section: "1", Source: "Arbiter", Manual: "Arbiter"}, dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where to; it is made if need be")
	return cmd
}
