package action

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/minio/minio-go/v7"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// A caseDir is a real case on disk, with its shelf and artifacts.
type caseDir struct {
	*casebook.Case
	book *casebook.Book
	env  Env
}

func newCaseDir(t *testing.T) caseDir {
	t.Helper()
	return caseIn(t, t.TempDir(), casebook.Limits{})
}

func caseIn(t *testing.T, dir string, limits casebook.Limits) caseDir {
	t.Helper()
	book, err := casebook.Open(dir, limits, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	// A directory that cannot be written is an error with a case: the book
	// tries again later.
	c, err := book.Create(&casebook.Record{ID: casebook.NewID(time.Now())})
	if c == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	env := newTestEnv(t).Env
	env.Case, env.Artifacts, env.Shelf = c.ID(), caseArtifacts{c.Artifacts("a-step")}, func() Shelf { return c }
	return caseDir{c, book, env}
}

// caseArtifacts are a casebook's artifacts as actions want them.
type caseArtifacts struct{ a *casebook.Artifacts }

func (c caseArtifacts) Create(name string) (Artifact, error) {
	f, err := c.a.Create(name)
	if err != nil {
		return nil, err
	}
	return caseFile{f}, nil
}

type caseFile struct{ file *casebook.File }

func (f caseFile) Write(p []byte) (int, error) { return f.file.Write(p) }
func (f caseFile) File() FileWriter            { return f.file }
func (f caseFile) Close() error                { return f.file.Close() }
func (f caseFile) Abort(why error)             { f.file.Abort(why) }

// put makes a finished artifact.
func (c caseDir) put(t *testing.T, name, content string) {
	t.Helper()
	a, err := c.env.Artifacts.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(a, content); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func (c caseDir) names() (names []string) {
	for _, a := range c.List() {
		names = append(names, a.Name)
	}
	return names
}

func TestUploadWants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		globs []string
		name  string
		want  bool
	}{
		{nil, "core.1.app.elf", true},
		{nil, "core.1.app.elf.partial", false},
		{[]string{"core.*.elf"}, "core.1.app.elf", true},
		{[]string{"core.*.elf"}, "core.1.app.elf.zst", true},
		{[]string{"heap.*"}, "core.1.app.elf", false},
	} {
		if got := (uploadOrder{Artifacts: c.globs}).wants(c.name); got != c.want {
			t.Errorf("%q wants %s: %t", c.globs, c.name, got)
		}
	}
	if got := (uploadOrder{Prefix: "/a/../b/", Case: "C"}).key("n"); got != "b/C/n" {
		t.Errorf("key %q", got)
	}
}

func TestUploadRefuses(t *testing.T) {
	t.Parallel()
	c := newCaseDir(t)
	if _, err := (Upload{policy.UploadOptions{To: "nowhere"}}).Run(context.Background(), c.env); err == nil || !strings.Contains(err.Error(), "[upload.nowhere]") {
		t.Errorf("error %v", err)
	}
	for _, endpoint := range []string{"", "host:9000", "ftp://host"} {
		if _, err := (UploadTarget{Endpoint: endpoint, CredentialsFile: "/dev/null"}).client(); err == nil {
			t.Errorf("endpoint %q was accepted", endpoint)
		}
	}
}

// The whole way against a real server: it is down at first, the order survives
// the daemon, a later daemon carries it out once the server is up.
func TestUploadToS3(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds an S3 server")
	}
	server := newS3(t)
	c := newCaseDir(t)
	c.env.Uploads = map[string]UploadTarget{"store": server.target}
	c.env.Step.Name = "to the store"
	c.put(t, "core.1.app.elf", strings.Repeat("core", 5<<20)) // more than one part
	c.put(t, "other.txt", "other")
	if err := c.Save(&casebook.Record{ID: c.ID()}); err != nil {
		t.Fatal(err)
	}
	res, err := Upload{policy.UploadOptions{To: "store", Prefix: "node-1", Artifacts: []string{"core.*"}}}.Run(context.Background(), c.env)
	if err != nil || len(res.After) != 1 {
		t.Fatalf("result %+v, error %v", res, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := res.After[0](ctx); err == nil {
		t.Fatal("uploaded to a server that is not there")
	}
	uploader := Uploader{Cases: c.book.Dir(), Targets: c.env.Uploads, Log: hclog.NewNullLogger(), Every: 50 * time.Millisecond}
	if n := len(uploader.orders()); n != 1 {
		t.Fatalf("%d orders are left for a later daemon", n)
	}

	server.start(t)
	run, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { uploader.Run(run); close(done) }()
	defer func() { stop(); <-done }()
	eventually(t, "uploaded", func() bool { return len(uploader.orders()) == 0 })
	want := map[string]int64{"node-1/" + c.ID() + "/core.1.app.elf": 20 << 20, "node-1/" + c.ID() + "/case.json": 0}
	got := server.list(t)
	want["node-1/"+c.ID()+"/case.json"] = got["node-1/"+c.ID()+"/case.json"]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// An order of a case that is still open is its own daemon's.
func TestUploaderLeavesOpenCasesAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := Uploader{Cases: dir, Log: hclog.NewNullLogger(), Every: time.Millisecond,
		Targets: map[string]UploadTarget{"s": {Endpoint: "http://127.0.0.1:1", CredentialsFile: "/dev/null"}}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { u.Run(ctx); close(done) }()
	time.Sleep(20 * time.Millisecond)
	name := filepath.Join(dir, "case", uploadPrefix+"x.json")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (uploadOrder{Case: "case", To: "s"}).save(name); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	cancel()
	<-done
	if _, err := os.Stat(name); err != nil {
		t.Errorf("the order was taken: %v", err)
	}
}

// s3 is a versitygw over a directory.
type s3 struct {
	target UploadTarget
	exe    string
	dir    string
	addr   string
}

// newS3 builds the server, which is kept in the repository's .cache, and
// chooses its address. It does not run yet.
func newS3(t *testing.T) *s3 {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs program: go")
	}
	exe, err := filepath.Abs("../../.cache/bin/versitygw")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-C", "../../tests/tools", "-o", exe, "github.com/versity/versitygw/cmd/versitygw")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build versitygw: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &s3{exe: exe, dir: t.TempDir(), addr: addr}
	credentials := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte("[default]\naws_access_key_id = arbiter\naws_secret_access_key = a-secret-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.target = UploadTarget{Endpoint: "http://" + addr, Bucket: "dumps", CredentialsFile: credentials}
	return s
}

func (s *s3) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(s.exe, "--access", "arbiter", "--secret", "a-secret-key", "--port", s.addr, "posix", s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	client := s.client(t)
	eventually(t, "serving", func() bool {
		return client.MakeBucket(context.Background(), s.target.Bucket, minio.MakeBucketOptions{}) == nil
	})
}

func (s *s3) client(t *testing.T) *minio.Client {
	t.Helper()
	client, err := s.target.client()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// list is every object with its size.
func (s *s3) list(t *testing.T) map[string]int64 {
	t.Helper()
	objects := map[string]int64{}
	for o := range s.client(t).ListObjects(context.Background(), s.target.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		objects[o.Key] = o.Size
	}
	return objects
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s in a minute", what)
		}
	}
}
