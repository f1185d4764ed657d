// Arbiterctl is the operator's side of Arbiter: it shows what is held and why,
// gives orders to the daemon, and checks, explains and replays policies. It
// speaks to arbiterd over its unix socket; lint, replay of a fetched case and
// explain of a described container work without a daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/api"
)

// Exit codes.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitUnreachable
)

// Version is set by the linker.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings given.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.client != nil {
		a.client.Close()
	}
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errToldAlready):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "arbiterctl: %v\n", err)
		fmt.Fprintf(stderr, "run '%s --help' for usage\n", usage.command)
		return exitUsage
	}
	fmt.Fprintf(stderr, "arbiterctl: %v\n", clean(err.Error()))
	if errors.Is(err, api.ErrUnreachable) {
		return exitUnreachable
	}
	return exitFailed
}

// errToldAlready is a failure whose message is already out.
var errToldAlready = errors.New("failed")

// A usageError is a command line that makes no sense.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), cmd.CommandPath()}
}

// app is what all commands share.
type app struct {
	socket string
	output string // table, wide or json
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time
	client *api.Client
}

func (a *app) api() *api.Client {
	if a.client == nil {
		a.client = api.New(a.socket)
	}
	return a.client
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "arbiterctl",
		Short: "Look at held containers, decide about them, and check policies",
		Long: `arbiterctl speaks to arbiterd, which holds containers at their memory limit,
gathers evidence and decides what becomes of them.

Start with 'arbiterctl pause-list': who stands still now, why, and until when.

Exit codes: 0 done, 1 failed, 2 usage, 3 daemon not reachable.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = fmt.Sprintf(" (did you mean %q?)", s[0])
			}
			return usagef(cmd, "unknown command %q%s", args[0], hint)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch a.output {
			case "table", "wide", "json":
				return nil
			}
			return usagef(cmd, "-o %q: want table, wide or json", a.output)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%w", err) })
	socket := os.Getenv("ARBITER_SOCKET")
	if socket == "" {
		socket = api.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the daemon's socket (or ARBITER_SOCKET)")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "output format: table, wide or json")
	root.AddCommand(
		a.pauseList(), a.cases(), a.show(),
		a.resume(), a.kill(), a.extend(), a.pause(), a.disarm(),
		a.guards(), a.explain(), a.lint(), a.replay(),
		a.top(), a.get(), a.report(), a.convert(),
		a.status(), a.reload(), a.version(), a.completion(), a.man(),
	)
	return root
}

// nArgs wants between least and most arguments, whose names the usage tells;
// most below 0 is any number.
func nArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(cmd, "something is missing: %s", cmd.UseLine())
		case most >= 0 && len(args) > most:
			return usagef(cmd, "%q is too much: %s", strings.Join(args[most:], " "), cmd.UseLine())
		}
		return nil
	}
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
