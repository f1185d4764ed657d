// Command arbiterd is the out-of-memory arbiter of a node: it holds containers
// at their memory limits, runs what the policy orders, and kills or resumes
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is set by the linker.
var version = ""

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

// errReported is an error that its command has printed already.
var errReported = errors.New("reported")

// run is the command line: 0 done, 1 failed, 2 usage.
func run(ctx context.Context, args []string) int {
	var o options
	root := &cobra.Command{
		Use:   "arbiterd",
		Short: "hold containers at their memory limit, act, then kill or resume them",
		Long: "arbiterd guards containers by the policies in /etc/arbiter/policy.d.\n" +
			"Without a command it runs the daemon in the foreground. On a node, run\n" +
			"`arbiterd supervise`, which lets every container go if the daemon dies.",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: buildVersion(),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), o) },
	}
	f := root.PersistentFlags()
	f.StringVar(&o.config, "config", "/etc/arbiter/arbiter.toml", "configuration file; the default one may be missing")
	f.StringVar(&o.cgroupRoot, "cgroup-root", "/sys/fs/cgroup", "where the cgroup hierarchies are mounted")
	f.IntVar(&o.link, "link", -1, "")
	if err := f.MarkHidden("link"); err != nil {
		panic(err)
	}
	root.AddCommand(superviseCommand(&o), releaseCommand(&o), checkCommand(&o), dumpCommand())
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	}
	fmt.Fprintln(os.Stderr, "arbiterd:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// options are the flags that all commands share.
type options struct {
	config     string
	cgroupRoot string
	link       int // the supervisor's end of the link is this file descriptor
}

// buildVersion is the version that was linked in, else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "devel"
}
