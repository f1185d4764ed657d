package casebook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// mountDisk is a disk of 256 KiB.
func mountDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("arbiter-test", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skip("needs kernel feature: mount of a tmpfs")
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves no free page on the disk.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return path
}

// A case that opens on a full disk is kept in memory, and is written as soon
// as there is room: record, timeline and all.
func TestKernelFullDisk(t *testing.T) {
	dir := mountDisk(t)
	filler := fill(t, dir)
	b := openBook(t, dir, Limits{})
	r := newRecord("20261121T061502-7f3a")
	c, err := b.Create(r)
	if !errors.Is(err, syscall.ENOSPC) || c == nil {
		t.Fatalf("create on a full disk: %v, %v", c, err)
	}
	if err := c.Log(Entry{At: opened, What: "held"}, true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("log on a full disk: %v", err)
	}
	if got, err := b.Get("7f3a"); err != nil || got.Rule != r.Rule {
		t.Errorf("the case cannot be seen: %v, %v", got, err)
	}
	f, err := c.Artifacts("snapshot").Create("processes.txt")
	if err == nil {
		_, err = f.Write(make([]byte, 64<<10))
		f.Abort(err)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("artifact on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.State = "steps"
	if err := c.Save(r); err != nil {
		t.Fatal(err)
	}
	if err := c.Log(Entry{At: opened, What: "step snapshot failed"}, true); err != nil {
		t.Fatal(err)
	}
	entries, err := b.Timeline(c.ID())
	if err != nil || len(entries) != 2 || entries[0].What != "held" {
		t.Errorf("timeline %v, %v", entries, err)
	}
	closeCase(t, c, opened)
	if got, err := b.Get("7f3a"); err != nil || got.State != "closed" {
		t.Errorf("after there was room: %v, %v", got, err)
	}
}

// A case that opens and closes while the disk is full is not lost.
func TestKernelFullDiskUntilTheEnd(t *testing.T) {
	dir := mountDisk(t)
	filler := fill(t, dir)
	b := openBook(t, dir, Limits{})
	r := newRecord("20261121T061502-7f3a")
	c, err := b.Create(r)
	if c == nil {
		t.Fatal(err)
	}
	r.State, r.Closed, r.Outcome = "closed", opened, OutcomeKill
	err = errors.Join(c.Log(Entry{At: opened, What: "closed"}, true), c.Save(r))
	if cerr := c.Close(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(cerr, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v, close: %v", err, cerr)
	}
	if list, err := b.List(Filter{Outcome: OutcomeKill}); err != nil || len(list) != 1 {
		t.Errorf("the case cannot be seen: %v, %v", list, err)
	}
	if full, err := b.GetFull("7f3a"); err != nil || len(full.Timeline) != 1 {
		t.Errorf("its timeline cannot be seen: %+v, %v", full, err)
	}
	if _, err := b.Prune(opened); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prune(opened); err != nil {
		t.Error(err)
	}
	b.Close()
	b = openBook(t, dir, Limits{})
	full, err := b.GetFull("7f3a")
	if err != nil || full.Outcome != OutcomeKill || len(full.Timeline) != 1 {
		t.Errorf("after there was room: %+v, %v", full, err)
	}
}

// A full disk in the middle leaves the last good record and a partial artifact
// that says why, with and without a floor.
func TestKernelDiskFillsUp(t *testing.T) {
	for name, floor := range map[string]policy.Size{"no floor": {}, "floor": {Bytes: 64 << 10}} {
		t.Run(name, func(t *testing.T) {
			dir := mountDisk(t)
			b := openBook(t, dir, Limits{MinFree: floor})
			c := create(t, b, "20261121T061502-7f3a")
			f, err := c.Artifacts("core-dump").Create("core.1")
			for i := 0; i < 1000 && err == nil; i++ {
				_, err = f.Write(make([]byte, 4096))
			}
			if floor.IsZero() && !errors.Is(err, syscall.ENOSPC) || !floor.IsZero() && !errors.Is(err, ErrNoRoom) {
				t.Fatalf("writing on: %v", err)
			}
			f.Abort(err)
			r, _ := c.Record()
			r.State = strings.Repeat("x", 8192)
			if err := c.Save(r); floor.IsZero() != errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the floor keeps room for the record: %v", err)
			}
			if _, err := c.Finish(context.Background()); err != nil {
				t.Error(err)
			}
			if list := c.List(); len(list) != 1 || !list[0].Partial || list[0].Why != err.Error() {
				t.Errorf("artifacts %+v", list)
			}
			b.Close()
			b = openBook(t, dir, Limits{})
			if got, err := b.Get("7f3a"); err != nil || floor.IsZero() && got.State != "held" {
				t.Errorf("the old record is gone: %v, %v", got, err)
			}
		})
	}
}

func TestKernelReadOnlyDisk(t *testing.T) {
	dir := mountDisk(t)
	b := openBook(t, dir, Limits{})
	closeCase(t, create(t, b, "20261121T061502-7f3a"), opened)
	b.Close()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	b = openBook(t, dir, Limits{})
	if list, err := b.List(Filter{}); err != nil || len(list) != 1 {
		t.Errorf("list %v, %v", list, err)
	}
	if c, err := b.Create(newRecord("20261121T061502-0001")); !errors.Is(err, syscall.EROFS) || c == nil {
		t.Errorf("create: %v, %v", c, err)
	}
}

// A state directory that does not exist yet on a full disk is made later.
func TestKernelFullDiskBeforeTheFirstCase(t *testing.T) {
	dir := mountDisk(t)
	filler := fill(t, dir)
	// A directory takes no page of a tmpfs: run out of inodes instead.
	if err := unix.Mount("", dir, "tmpfs", unix.MS_REMOUNT, "size=256k,nr_inodes=2"); err != nil {
		t.Skip("needs kernel feature: tmpfs nr_inodes")
	}
	b := openBook(t, dir, Limits{})
	c, err := b.Create(newRecord("20261121T061502-7f3a"))
	if !errors.Is(err, syscall.ENOSPC) || c == nil {
		t.Fatalf("create: %v, %v", c, err)
	}
	if err := errors.Join(os.Remove(filler), unix.Mount("", dir, "tmpfs", unix.MS_REMOUNT, "size=256k,nr_inodes=100")); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(newRecord("20261121T061502-7f3a")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir(), recordFile)); err != nil {
		t.Error(err)
	}
}
