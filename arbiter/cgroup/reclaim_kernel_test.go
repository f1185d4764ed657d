package cgroup_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

type reclaimer interface {
	cgroup.Cgroup
	Reclaim(ctx context.Context, bytes uint64) (uint64, error)
}

// Page cache of a held container is given back, its anonymous memory is not,
// and nothing of it runs or dies.
func TestKernelReclaimWhileHeld(t *testing.T) {
	testkit.Need(t, testkit.Memory)
	group := testkit.Tree(t, testkit.Options{Limit: 256 * mib})
	g := newGuard(t)
	c := g.arm(group).(reclaimer)
	writer := group.Start(testkit.Load{Kind: testkit.Cache, Ceiling: 48 * mib, File: filepath.Join(t.TempDir(), "cache")})
	for end := time.Now().Add(testkit.Patience); !writer.Done() && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	must(t, c.Freeze(t.Context()))
	before, pages := usage(t, c), writer.Pages()
	if before.Current-before.Unreclaimable < 32*mib {
		t.Fatalf("only %+v of cache to reclaim", before)
	}
	got, err := c.Reclaim(t.Context(), 16*mib)
	must(t, err)
	if got < 8*mib {
		t.Errorf("reclaimed %d of 16 MiB", got)
	}
	got, err = c.Reclaim(t.Context(), 0)
	must(t, err)
	after := usage(t, c)
	t.Logf("%d MiB, then %d MiB reclaimed of %d", before.Current/mib, got/mib, after.Current/mib)
	if cache := after.Current - after.Unreclaimable; cache > 8*mib {
		t.Errorf("%d MiB of cache are left", cache/mib)
	}
	if writer.Pages() != pages || writer.Exited() || group.Kills() != 0 {
		t.Errorf("%d blocks written meanwhile, exited %v, %d kills", writer.Pages()-pages, writer.Exited(), group.Kills())
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Reclaim(cancelled, 0); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func usage(t *testing.T, c cgroup.Cgroup) cgroup.Usage {
	t.Helper()
	u, err := c.Usage()
	must(t, err)
	return u
}
