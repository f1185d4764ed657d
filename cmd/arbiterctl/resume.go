package main

import (
	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/policy"
)

func (a *app) resume() *cobra.Command {
	var r api.ResumeRequest
	cmd := &cobra.Command{
		Use: "resume CASE", Args: nArgs(1, 1),
		Short: "Let a held container go on",
		Long: `Let a held container go on. At its limit it needs more room, or it is back at
the limit at once: --raise says how much; without it the rule's own raise is
granted.`,
		Example: "  arbiterctl resume 7f3a --raise 25%",
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Raise != "" {
				if _, err := policy.ParseSize(r.Raise); err != nil {
					return usagef(cmd, "--raise: %w", err)
				}
			}
			return a.done(a.api().Resume(cmd.Context(), args[0], r))
		},
	}
	cmd.Flags().StringVar(&r.Raise, "raise", "", "room above the original limit: 25% of it, or 512MiB")
	return cmd
}
