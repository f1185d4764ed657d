package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/policyfs"
	"github.com/arbiterd/arbiter/policy"
)

func (a *app) lint() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "lint [FILE|DIR...]", Args: nArgs(0, -1),
		Short: "Check policies as the daemon does",
		Long: `Check policy files, or the policy directories of this node, as the daemon does:
what lint takes, the daemon loads. Each message has file:line:column, the rule,
the key and a hint. Exit code 0 without errors (there may be warnings), 1 with.

--explain KEY prints the reference of a key instead.`,
		Example: `  arbiterctl lint
  arbiterctl lint policy.d/*.toml -o json
  arbiterctl lint --explain verdict.raise`,
	}
	dirs := policyFlag(cmd)
	cmd.Flags().StringVar(&key, "explain", "", "print the reference of this key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if key != "" {
			text, err := policy.ExplainKey(key)
			if err != nil {
				return err
			}
			return a.println(strings.TrimSuffix(text, "\n"))
		}
		if len(args) > 0 {
			if cmd.Flags().Changed("policy") {
				return usagef(cmd, "name files or give --policy, and not both")
			}
			files, err := policyfs.ReadFiles(args)
			return a.printLint(lintFiles(files, err, policy.Env{}), files)
		}
		files, err := policyfs.Load(*dirs)
		d := lintFiles(files, err, policy.Env{NodeBytes: nodeMemory()})
		if len(files) == 0 && len(d) == 0 {
			d = append(d, policy.Diagnostic{Severity: policy.SeverityWarning,
				Message: "no *.toml in " + strings.Join(*dirs, ", "), Hint: "nothing will be guarded"})
		}
		return a.printLint(d, files)
	}
	return cmd
}

// lintFiles is everything there is to say about files, and about those that
// could not be read.
func lintFiles(files []policy.File, unread error, env policy.Env) policy.Diagnostics {
	out := policy.Diagnostics{}
	for _, err := range unjoin(unread) {
		out = append(out, policy.Diagnostic{Severity: policy.SeverityError, Message: err.Error()})
	}
	p, diags := policy.Decode(files)
	out = append(out, diags...)
	if p != nil {
		out = append(out, policy.Lint(p, env)...)
	}
	return out
}

// unjoin takes apart what errors.Join joined.
func unjoin(err error) []error {
	switch joined := err.(type) { //nolint:errorlint // the tree itself is wanted, not what it wraps
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, unjoin(e)...)
		}
		return out
	}
	return []error{err}
}

func (a *app) printLint(diags policy.Diagnostics, files []policy.File) error {
	if a.output == "json" {
		if err := a.json(diags); err != nil {
			return err
		}
	} else {
		for _, d := range diags {
			if err := a.println(clean(d.String())); err != nil {
				return err
			}
		}
		a.hint("%s: %s, %s", count(len(files), "file"), count(len(diags.Errors()), "error"), count(len(diags.Warnings()), "warning"))
	}
	if diags.HasErrors() {
		return errToldAlready
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// nodeMemory is this node's memory in bytes, 0 if it is not told.
func nodeMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}
