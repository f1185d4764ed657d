package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/policyfs"
	"github.com/arbiterd/arbiter/policy"
)

// policyFlag adds --policy.
func policyFlag(cmd *cobra.Command) *[]string {
	return cmd.Flags().StringArray("policy", policyfs.DefaultDirs(), "policy directory; give it again for more, a later one masks files of the same name")
}

// loadPolicy reads and decodes policy directories, or tells why it cannot.
func (a *app) loadPolicy(dirs []string) (*policy.Policy, error) {
	files, err := policyfs.Load(dirs)
	if err != nil {
		return nil, err
	}
	p, diags := policy.Decode(files)
	for _, d := range diags.Warnings() {
		a.hint("%s", clean(d.String()))
	}
	if err := diags.Err(); err != nil {
		return nil, fmt.Errorf("the policy has errors:\n%w", err)
	}
	if p == nil {
		return nil, errors.New("the policy could not be decoded")
	}
	return p, nil
}
