package action

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// A testEnv is an Env for unit tests: a container without processes, with a
// limit of 256 MiB and 200 MiB used, artifacts in a temporary directory. A
// test changes what it needs.
type testEnv struct {
	Env
	cg    *fakeCgroup
	files *fakeArtifacts
	log   *bytes.Buffer // JSON, one line an entry
	lent  uint64        // what Borrow was last asked for
}

func newTestEnv(t testing.TB) *testEnv {
	t.Helper()
	e := &testEnv{
		cg:    &fakeCgroup{path: "/kubepods/pod1/c1", usage: cgroup.Usage{Current: 220 << 20, Unreclaimable: 200 << 20, Limit: policy.LimitOf(256 << 20)}},
		files: &fakeArtifacts{dir: t.TempDir()},
		log:   &bytes.Buffer{},
	}
	e.Env = Env{
		Case:     "20261121T061502-7f3a",
		CaseJSON: func() []byte { return []byte(`{"id":"20261121T061502-7f3a"}`) },
		Facts: policy.Facts{
			Container: cri.Container{ID: "c1", Name: "app", Image: "shop/checkout:1", Cgroup: "/kubepods/pod1/c1",
				Pod: cri.Pod{Name: "checkout-1", Namespace: "shop", UID: "u1"}},
			Trigger: policy.OnLimit, Why: "the limit is reached", CgroupVersion: 1,
			Limit: policy.LimitOf(256 << 20), UsageBytes: 220 << 20,
		},
		Rule:      &policy.Rule{Name: "a-rule"},
		Step:      policy.Step{Name: "a-step"},
		Cgroup:    e.cg,
		Proc:      proc.FS("/proc"),
		Artifacts: e.files,
		Log:       hclog.New(&hclog.LoggerOptions{Output: e.log, JSONFormat: true, Level: hclog.Debug}),
		Progress:  func(_, _ uint64) {},
		Borrow: func(_ context.Context, bytes uint64) error {
			e.lent = bytes
			return nil
		},
	}
	return e
}

// fakeCgroup answers from its fields. A method that is not here panics: the
// action under test is not meant to call it.
type fakeCgroup struct {
	cgroup.Cgroup
	path string
	id   uint64
	pids []int

	mu     sync.Mutex
	usage  cgroup.Usage
	status cgroup.Status
	err    error // of Usage and Pids
}

func (c *fakeCgroup) Path() string { return c.path }
func (c *fakeCgroup) ID() uint64   { return c.id }
func (c *fakeCgroup) Pids() ([]int, error) {
	return c.pids, c.err
}

func (c *fakeCgroup) Usage() (cgroup.Usage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usage, c.err
}

func (c *fakeCgroup) Counters() (cgroup.Counters, error) { return cgroup.Counters{}, c.err }
func (c *fakeCgroup) Status() cgroup.Status              { return c.status }

// Guarded only runs f, as on v1.
func (c *fakeCgroup) Guarded(_ context.Context, f func() error) error { return f() }

func (c *fakeCgroup) setUnreclaimable(bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usage.Unreclaimable = bytes
}

// fakeArtifacts are files in a directory. It fails a test that leaves one open.
type fakeArtifacts struct {
	dir  string
	full bool // every write fails, as on a full disk

	mu      sync.Mutex
	aborted map[string]error
}

var errDiskFull = errors.New("no space left on device")

func (a *fakeArtifacts) Create(name string) (Artifact, error) {
	f, err := os.OpenFile(filepath.Join(a.dir, name+".partial"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &fakeArtifact{a: a, name: name, f: f}, nil
}

// read is the content of a finished artifact, "" if there is none.
func (a *fakeArtifacts) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// names are all files, half-written ones too.
func (a *fakeArtifacts) names(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

type fakeArtifact struct {
	a    *fakeArtifacts
	name string
	f    *os.File
}

func (f *fakeArtifact) Write(p []byte) (int, error) {
	if f.a.full {
		return 0, errDiskFull
	}
	return f.f.Write(p)
}

func (f *fakeArtifact) File() FileWriter { return fakeFile{f.f, f} }

// A fakeFile knows the name that it has now.
type fakeFile struct {
	*os.File
	of *fakeArtifact
}

func (f fakeFile) Name() string {
	final := filepath.Join(f.of.a.dir, f.of.name)
	if _, err := os.Stat(final); err == nil {
		return final
	}
	return f.File.Name()
}

func (f *fakeArtifact) Close() error {
	if err := f.f.Close(); err != nil {
		return err
	}
	return os.Rename(f.f.Name(), filepath.Join(f.a.dir, f.name))
}

func (f *fakeArtifact) Abort(why error) {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	if f.a.aborted == nil {
		f.a.aborted = map[string]error{}
	}
	f.a.aborted[f.name] = why
	_ = f.f.Close()
}
