package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Args: nArgs(0, 0),
		Short: "Tell the versions of arbiterctl and of the daemon",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Arbiterctl string `json:"arbiterctl"`
				Arbiterd   string `json:"arbiterd"` // "" if it is not reachable
				Go         string `json:"go"`
			}{Arbiterctl: buildVersion(), Go: runtime.Version()}
			s, err := a.api().Status(cmd.Context())
			if err != nil && !errors.Is(err, api.ErrUnreachable) {
				return err
			}
			v.Arbiterd = s.Version
			if a.output == "json" {
				return a.json(v)
			}
			daemon := v.Arbiterd
			if err != nil {
				daemon = "not reachable"
			}
			return a.println(fmt.Sprintf("arbiterctl  %s (%s)\narbiterd    %s", v.Arbiterctl, v.Go, clean(daemon)))
		},
	}
}
