package casebook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

func TestCleanName(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"core.123":                "core.123",
		"../../etc/passwd":        "_.._etc_passwd",
		"":                        "artifact",
		"...":                     "artifact",
		"a.partial":               "a",
		"a.partial.partial":       "a",
		"x\x1b[31m\n":             "x__31m_",
		strings.Repeat("é", 3):    "___",
		strings.Repeat("a", 1000): strings.Repeat("a", maxNameLen),
	}
	for in, want := range tests {
		if got := cleanName(in); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", in, got, want)
		}
		if err := checkName(cleanName(in)); err != nil {
			t.Errorf("cleanName(%q) is refused: %v", in, err)
		}
	}
}

func TestArtifactStates(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{})
	c := create(t, b, "")
	dir := filepath.Join(c.Dir(), artifactsDir)
	f, err := c.Artifacts("heap-dump").Create("heap.hprof.zst")
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("abc"))
	want := []Artifact{{Name: "heap.hprof.zst.partial", Step: "heap-dump", Size: 3, Partial: true, Why: "still being written"}}
	if diff := cmp.Diff(want, c.List()); diff != "" {
		t.Errorf("while writing (-want +got):\n%s", diff)
	}
	if f.Name() != filepath.Join(dir, "heap.hprof.zst.partial") {
		t.Errorf("name while writing: %s", f.Name())
	}
	f.Abort(errors.New("the JVM went away"))
	f.Abort(errors.New("again"))
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close after abort: %v", err)
	}
	write(t, c, "heap-dump", "heap.hprof.zst", "abcd") // the name is taken, in part
	arts, err := c.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("abcd"))
	want = []Artifact{
		{Name: "heap.hprof.zst.partial", Step: "heap-dump", Size: 3, Partial: true, Why: "the JVM went away"},
		{Name: "heap-2.hprof.zst", Step: "heap-dump", Size: 4, SHA256: hex.EncodeToString(sum[:])},
	}
	if diff := cmp.Diff(want, arts); diff != "" {
		t.Errorf("finished (-want +got):\n%s", diff)
	}
	for _, name := range []string{"heap.hprof.zst.partial", "heap-2.hprof.zst"} {
		r, err := c.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if err := c.Remove("heap-2.hprof.zst"); err != nil {
		t.Fatal(err)
	}
	if len(c.List()) != 1 {
		t.Errorf("after removal: %v", c.List())
	}
}

func TestArtifactSparse(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{CaseBytes: policy.Size{Bytes: 1 << 20}})
	c := create(t, b, "")
	f, err := c.Artifacts("core-dump").Create("core.1")
	if err != nil {
		t.Fatal(err)
	}
	// 32 MiB of holes with 64 KiB of data keeps to a budget of 1 MiB.
	if _, err := f.WriteAt(make([]byte, 64<<10), 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	if room, err := f.Room(); err != nil || room != 1<<20-64<<10 {
		t.Errorf("room is %d, %v", room, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	arts, err := c.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(make([]byte, 32<<20))
	if arts[0].SHA256 != hex.EncodeToString(sum[:]) || arts[0].Size != 32<<20 {
		t.Errorf("artifact %+v", arts[0])
	}
}

// What is written twice counts once, as soon as the file is closed.
func TestRoomComesBack(t *testing.T) {
	t.Parallel()
	const budget, chunk = 1 << 20, 256 << 10
	b := openBook(t, t.TempDir(), Limits{CaseBytes: policy.Size{Bytes: budget}})
	c := create(t, b, "")
	f, err := c.Artifacts("core-dump").Create("core.1")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := f.WriteAt(bytes.Repeat([]byte("x"), chunk), 0); err != nil {
			t.Fatal(err)
		}
	}
	if room, _ := f.Room(); room != 0 {
		t.Errorf("while it is written: room for %d", room)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if room, _ := f.Room(); room < budget-2*chunk || room > budget-chunk {
		t.Errorf("after it: room for %d", room)
	}
}

func TestFinishIsCutShort(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{})
	c := create(t, b, "")
	f, err := c.Artifacts("core-dump").Create("core.1")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("x"), 10)
	f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	arts, err := c.Finish(ctx)
	if !errors.Is(err, context.Canceled) || arts[0].SHA256 != "" || arts[0].Why != "" || arts[0].Partial {
		t.Errorf("%+v, %v", arts, err)
	}
}

// A daemon that dies between the verdict and the sums leaves them to the next.
func TestFinishLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{})
	c := create(t, b, "20261121T061502-7f3a")
	f, err := c.Artifacts("core-dump").Create("core.1")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("abc"), 0)
	f.Close()
	closeCase(t, c, opened)
	b.Close()
	b = openBook(t, dir, Limits{})
	if cases, err := b.Interrupted(); err != nil || len(cases) != 0 {
		t.Errorf("a closed case as interrupted: %v, %v", cases, err)
	}
	for range 2 {
		if err := b.FinishLeft(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.Get("7f3a")
	sum := sha256.Sum256([]byte("abc"))
	want := []Artifact{{Name: "core.1", Step: "core-dump", Size: 3, SHA256: hex.EncodeToString(sum[:])}}
	if diff := cmp.Diff(want, r.Artifacts); err != nil || diff != "" || r.Outcome != OutcomeKill {
		t.Errorf("%v, %v, artifacts (-want +got):\n%s", r, err, diff)
	}
}

func TestOpenArtifactRefusesPaths(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{})
	c := create(t, b, "")
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("x"), 0o600)
	os.Symlink(secret, filepath.Join(c.Dir(), artifactsDir, "link"))
	unix.Mkfifo(filepath.Join(c.Dir(), artifactsDir, "fifo"), 0o600)
	for _, name := range []string{"../case.json", "/etc/passwd", "", ".", "..", "link", "fifo", "none", "a/b", "a\x00b"} {
		if f, _, err := b.OpenArtifact(c.ID(), name); err == nil {
			f.Close()
			t.Errorf("opened %q", name)
		}
	}
	for _, id := range []string{"..", "", "/", "20261121T061502-7f3a/../x", "20200101T000000-0000"} {
		if f, _, err := b.OpenArtifact(id, "x"); err == nil {
			f.Close()
			t.Errorf("opened in case %q", id)
		}
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	const block = 64 << 10
	tests := map[string]struct {
		limits Limits
		says   string
	}{
		"case":  {Limits{CaseBytes: policy.Size{Bytes: 4 * block}}, "the case has 256.0 KiB of its 256.0 KiB"},
		"book":  {Limits{MaxBytes: policy.Size{Bytes: 5 * block}}, "max-size 320.0 KiB"},
		"floor": {Limits{MinFree: policy.Size{Percent: 50}}, "min-free is 1.0 MiB"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := openBook(t, t.TempDir(), tt.limits)
			var free uint64 = 1<<20 + 4*block
			b.budget.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Bsize: 1, Blocks: 2 << 20, Bavail: free}
				return nil
			}
			c := create(t, b, "")
			f, err := c.Artifacts("core-dump").Create("core.1")
			if err != nil {
				t.Fatal(err)
			}
			written := 0
			for written < 100*block && err == nil {
				var n int
				n, err = f.Write(make([]byte, block))
				written += n
				free -= uint64(n)
			}
			if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "core.1") {
				t.Errorf("after %d bytes: %v", written, err)
			}
			if written > 5*block {
				t.Errorf("%d bytes were written", written)
			}
			f.Abort(err)
			if list := c.List(); !list[0].Partial || list[0].Why != err.Error() {
				t.Errorf("%+v", list)
			}
		})
	}
}

func TestUsedBytesAddsUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openBook(t, dir, Limits{Retain: time.Hour})
	c := create(t, b, "20261121T061502-7f3a")
	write(t, c, "s", "a", strings.Repeat("x", 1<<20))
	closeCase(t, c, opened)
	before := b.UsedBytes()
	b.Close()
	b = openBook(t, dir, Limits{Retain: time.Hour})
	// The records themselves are counted only at Open.
	if d := b.UsedBytes() - before; d < 0 || d > 256<<10 {
		t.Errorf("counted %d while writing and %d on disk", before, b.UsedBytes())
	}
	if before < 1<<20 {
		t.Errorf("1 MiB was counted as %d", before)
	}
	if _, err := b.Prune(opened.Add(48 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if used := b.UsedBytes(); used > 64<<10 {
		t.Errorf("an empty book takes %d bytes", used)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	ids := []string{"20261101T000000-0001", "20261110T000000-0002", "20261120T000000-0003", "20261121T000000-0004"}
	tests := map[string]struct {
		limits Limits
		free   uint64
		left   string
	}{
		"nothing":   {Limits{}, 1 << 30, "0004 0003 0002 0001"},
		"age":       {Limits{Retain: 14 * 24 * time.Hour}, 1 << 30, "0004 0003 0002 0001"}, // 0001 is open
		"short age": {Limits{Retain: 36 * time.Hour}, 1 << 30, "0004 0003 0001"},
		"count":     {Limits{MaxCases: 1}, 1 << 30, "0004 0001"},
		"size":      {Limits{MaxBytes: policy.Size{Bytes: 2<<20 + 512<<10}}, 1 << 30, "0004 0001"},
		"free":      {Limits{MinFree: policy.Size{Bytes: 1 << 20}}, 0, "0001"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openBook(t, t.TempDir(), Limits{})
			for _, id := range ids {
				c := create(t, b, id)
				write(t, c, "s", "a", strings.Repeat("x", 1<<20))
				if id != ids[0] {
					at, _ := TimeOf(id)
					closeCase(t, c, at)
				}
			}
			b.limits, b.budget.limits = tt.limits, tt.limits
			b.budget.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Bsize: 1, Blocks: 1 << 30, Bavail: tt.free}
				return nil
			}
			if _, err := b.Prune(opened); err != nil {
				t.Fatal(err)
			}
			got, err := b.ids()
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = got[i][16:]
			}
			if s := strings.Join(got, " "); s != tt.left {
				t.Errorf("left %q, want %q", s, tt.left)
			}
		})
	}
}

func TestSweepEndsRemovals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	left := filepath.Join(dir, "cases", trash+"20261121T061502-7f3a")
	plant(t, left, recordFile, "{}")
	openBook(t, dir, Limits{})
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestReadersMeetNoHalfRecord(t *testing.T) {
	t.Parallel()
	b := openBook(t, t.TempDir(), Limits{})
	c := create(t, b, "")
	r, _ := c.Record()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for range 200 {
			c.Save(r)
		}
	}()
	for {
		select {
		case <-stop:
			return
		default:
		}
		f, err := os.Open(filepath.Join(c.Dir(), recordFile))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		f.Close()
		if _, perr := parseRecord(data, c.ID()); err != nil || perr != nil {
			t.Fatalf("%v, %v: %q", err, perr, data)
		}
	}
}
