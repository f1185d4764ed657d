package main

import "github.com/spf13/cobra"

func (a *app) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Args: nArgs(1, 1), ValidArgs: []string{"bash", "zsh", "fish"},
		Short:   "Print a completion script for a shell",
		Example: "  arbiterctl completion bash > /etc/bash_completion.d/arbiterctl",
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			}
			return usagef(cmd, "%q: want bash, zsh or fish", args[0])
		},
	}
}
