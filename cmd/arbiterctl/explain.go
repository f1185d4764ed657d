package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/policy"
)

func (a *app) explain() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "explain TARGET | --container FILE", Args: nArgs(0, 1),
		Short: "Tell which rule wins for a container, why the others lost, and the plan",
		Long: `Tell which rule wins for a container, why the others lost (with file and line),
and the plan: each step, freeze, thaw and raise, the longest hold and the most
memory borrowed. TARGET is namespace/pod/container, a container's id or a
cgroup's path; the daemon answers with the policy in force.

With --container the container is described by a JSON file ("-" is stdin) and
no daemon is asked: either a case.json, or

  {"container": {"name": "app", "image": "reg/shop/checkout:1",
                 "cgroup": "/kubepods/burstable/podX/Y",
                 "pod": {"namespace": "shop-eu", "name": "checkout-1",
                         "qos": "burstable", "labels": {"team": "pay"}}},
   "limitBytes": 268435456, "runtime": "jvm"}`,
		Example: `  arbiterctl explain shop-eu/checkout-7d9/app
  arbiterctl explain --container app.json --policy ./policy.d`,
	}
	dirs := policyFlag(cmd)
	cmd.Flags().StringVar(&file, "container", "", "describe the container by this JSON file instead")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (file == "") == (len(args) == 0) {
			return usagef(cmd, "name a target or give --container, and not both")
		}
		if file == "" && cmd.Flags().Changed("policy") {
			return usagef(cmd, "--policy goes with --container: the daemon explains with the policy in force")
		}
		text, err := a.explanation(cmd, args, file, *dirs)
		if err != nil {
			return err
		}
		if a.output == "json" {
			return a.json(api.Explanation{Text: text})
		}
		return a.println(clean(strings.TrimSuffix(text, "\n")))
	}
	return cmd
}

func (a *app) explanation(cmd *cobra.Command, args []string, file string, dirs []string) (string, error) {
	if file == "" {
		return a.api().Explain(cmd.Context(), args[0])
	}
	facts, err := readFacts(file, cmd.InOrStdin())
	if err != nil {
		return "", fmt.Errorf("container %s: %w", file, err)
	}
	p, err := a.loadPolicy(dirs)
	if err != nil {
		return "", err
	}
	return policy.Explain(p, facts.Container, facts), nil
}

const maxFacts = 8 << 20

// readFacts reads a described container: facts, or a record that holds them.
func readFacts(file string, stdin io.Reader) (policy.Facts, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return policy.Facts{}, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxFacts))
	if err != nil {
		return policy.Facts{}, err
	}
	return parseFacts(data)
}

func parseFacts(data []byte) (policy.Facts, error) {
	var in struct {
		policy.Facts
		Recorded *policy.Facts `json:"facts"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return policy.Facts{}, err
	}
	f := in.Facts
	if in.Recorded != nil {
		f = *in.Recorded
	}
	if f.Container.Cgroup == "" && f.Container.Name == "" && f.Container.Pod.Name == "" {
		return policy.Facts{}, errors.New(`it has no "container" with a cgroup, a name or a pod`)
	}
	return f, nil
}
