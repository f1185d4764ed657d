package action

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

// Swapped pages are charged when they are read: room is borrowed for them, on
// top of what is lent already, and only where it is needed.
func TestRoomForSwap(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	for _, c := range []struct {
		name     string
		usage    cgroup.Usage
		borrowed uint64
		refuse   error
		want     uint64 // asked for
		why      string
	}{
		{name: "no swap", usage: cgroup.Usage{Current: limit, Limit: policy.LimitOf(limit)}},
		{name: "no limit", usage: cgroup.Usage{Current: limit, Swap: 8 << 20}},
		{name: "fits", usage: cgroup.Usage{Current: 32 << 20, Swap: 8 << 20, Limit: policy.LimitOf(limit)}},
		{name: "tight", usage: cgroup.Usage{Current: limit, Swap: 8 << 20, Limit: policy.LimitOf(limit)}, want: 8<<20 + swapMargin},
		{name: "on top", usage: cgroup.Usage{Current: limit, Swap: 8 << 20, Limit: policy.LimitOf(limit)}, borrowed: 1 << 20, want: 9<<20 + swapMargin},
		{name: "refused", usage: cgroup.Usage{Current: limit, Swap: 8 << 20, Limit: policy.LimitOf(limit)}, refuse: errors.New("over budget"),
			want: 8<<20 + swapMargin, why: "8388608 bytes in swap: over budget"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newTestEnv(t)
			e.cg.usage, e.cg.status.Borrowed = c.usage, c.borrowed
			e.Borrow = func(_ context.Context, bytes uint64) error { e.lent = bytes; return c.refuse }
			if why := roomForSwap(context.Background(), e.Env); why != c.why {
				t.Errorf("why %q, want %q", why, c.why)
			}
			if e.lent != c.want {
				t.Errorf("asked for %d bytes, want %d", e.lent, c.want)
			}
		})
	}
}

// A process chooses its name and its path. Neither may break out of the file
// name or the command line that an operator copies.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	if got := fileName("../a b\n/c"); got != "___a_b__c" {
		t.Errorf("file name %q", got)
	}
	for in, want := range map[string]string{
		"/usr/bin/app":       "/usr/bin/app",
		"/a b":               "'/a b'",
		"/a'; rm -rf /; '":   `'/a'\''; rm -rf /; '\'''`,
		"/$(reboot)/`x`/a\\": "'/$(reboot)/`x`/a\\'",
		"":                   "''",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestOpenCommand(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	for runtime, want := range map[string]string{"": "gdb ", "go": "dlv core ", "jvm": "jhsdb jstack --exe "} {
		e.Facts.Runtime = runtime
		got := openCommand(e.Env, os.Getpid(), "/bin/app (deleted)", "/cases/c/artifacts/core.1.app.elf", true)
		if !strings.HasPrefix(got, "zstd -d --sparse /cases/c/artifacts/core.1.app.elf.zst && "+want) ||
			!strings.Contains(got, "/bin/app ") || strings.Contains(got, "deleted") || strings.Contains(got, "sysroot") {
			t.Errorf("%s: %s", runtime, got)
		}
	}
	e.Facts.Runtime = ""
	if got := openCommand(e.Env, -1, "/bin/app", "/core", false); got != `gdb -iex "set sysroot $ROOT" "$ROOT"/bin/app /core` {
		t.Errorf("in a container of its own: %s", got)
	}
}
