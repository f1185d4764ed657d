package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/arbiterd/arbiter/arbiter/jvm"
)

func (a *app) convert() *cobra.Command {
	var to string
	var c jvm.Conversion
	cmd := &cobra.Command{
		Use: "convert CORE", Args: nArgs(1, 1),
		Short: "Make a JVM's heap dump out of its core",
		Long: `Make a JVM's heap dump (HPROF, zstd) out of its core, without a daemon and
without the JVM: with jhsdb of a JDK of the very build that the JVM was.

CORE is an artifact as 'arbiterctl get' fetches it, compressed or not. The
binaries that ran, binaries.PID.tar.zst of the same case, are looked for beside
it.`,
		Example: `  arbiterctl get 7f3a
  arbiterctl convert 20261121T061502-7f3a/artifacts/core.4711.java.elf.zst
  arbiterctl convert core.4711.java.elf --jdk /opt/jdk-21 --to heap.hprof.zst`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Core = args[0]
			pid := pidOfCore.FindStringSubmatch(filepath.Base(c.Core))
			if c.Binaries == "" {
				if pid == nil {
					return usagef(cmd, "%s is no core.PID.NAME.elf: --binaries is needed", c.Core)
				}
				c.Binaries = filepath.Join(filepath.Dir(c.Core), "binaries."+pid[1]+".tar.zst")
			}
			if to == "" {
				to = "heap.hprof.zst"
				if pid != nil {
					to = "heap." + pid[1] + ".hprof.zst"
				}
			}
			return a.writeHeap(cmd.Context(), c, to)
		},
	}
	cmd.Flags().StringVar(&c.Binaries, "binaries", "", "the JVM's binaries; default binaries.PID.tar.zst beside CORE")
	cmd.Flags().StringVar(&c.JDK, "jdk", "", "home of the JDK; default: one of "+jvm.JDKs)
	cmd.Flags().StringVar(&to, "to", "", "write there; default heap.PID.hprof.zst")
	return cmd
}

// pidOfCore matches the names that core-dump gives.
var pidOfCore = regexp.MustCompile(`^core\.(\d+)\..*elf(\.zst)?$`)

// writeHeap converts, and removes what it wrote if that is no whole dump.
func (a *app) writeHeap(ctx context.Context, c jvm.Conversion, to string) error {
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	d, err := jvm.Convert(ctx, c, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	line := fmt.Sprintf("%s: %d objects, %d bytes", to, d.Objects, d.Bytes)
	if len(d.Classes) > 0 {
		line += ", most bytes: " + clean(d.Classes[0].Name)
	}
	return a.println(line)
}
