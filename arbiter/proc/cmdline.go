package proc

import (
	"context"
	"io"
	"strings"
)

// Comm is the process' name of at most 15 bytes. It is what the process
// chose: anything but NUL.
func (fs FS) Comm(pid int) (string, error) { return parse(fs, pid, "comm", line) }

// maxCmdline is how much of a command line is read: enough to tell JVMs apart.
const maxCmdline = 64 << 10

// Cmdline is the process' arguments as it shows them now; empty for a zombie.
// The kernel takes the target's mmap lock for it, which a stuck process may
// hold, so the read is abandoned when ctx is done.
func (fs FS) Cmdline(ctx context.Context, pid int) ([]string, error) {
	return Abandon(ctx, func() ([]string, error) { return parse(fs, pid, "cmdline", parseCmdline) })
}

// parseCmdline splits arguments that end in NUL. A process that overwrote its
// arguments may have left the last one without.
func parseCmdline(r io.Reader) ([]string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxCmdline))
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}
