package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
)

// fake answers what it is told to, and remembers the orders.
type fake struct {
	holds   []api.Hold
	changed chan struct{}
	err     error
	orders  []string
}

func (f *fake) Holds() []api.Hold        { return f.holds }
func (f *fake) Changed() <-chan struct{} { return f.changed }
func (f *fake) Guards() []api.Guard      { return nil }
func (f *fake) Status() api.Status       { return api.Status{Version: "1"} }

func (f *fake) order(format string, args ...any) (api.Done, error) {
	f.orders = append(f.orders, fmt.Sprintf(format, args...))
	return api.Done{Message: "done"}, f.err
}

func (f *fake) Resume(_ context.Context, id string, r api.ResumeRequest, op string) (api.Done, error) {
	return f.order("resume %s %s %s", id, r.Raise, op)
}
func (f *fake) Kill(_ context.Context, id, op string) (api.Done, error) {
	return f.order("kill %s %s", id, op)
}
func (f *fake) Extend(_ context.Context, id string, r api.ExtendRequest, op string) (api.Done, error) {
	return f.order("extend %s %s %s", id, r.By, op)
}
func (f *fake) Pause(_ context.Context, r api.PauseRequest, op string) (api.Done, error) {
	return f.order("pause %s %s %s", r.Target, r.Rule, op)
}
func (f *fake) Disarm(_ context.Context, r api.DisarmRequest, op string) (api.Done, error) {
	return f.order("disarm %q %v %s", r.Target, r.All, op)
}
func (f *fake) Reload(_ context.Context, op string) (api.Done, error) {
	return f.order("reload %s", op)
}
func (f *fake) Explain(_ context.Context, target string) (string, error) {
	return "because of " + target, f.err
}

func newBook(t *testing.T) *casebook.Book {
	t.Helper()
	book, err := casebook.Open(t.TempDir(), casebook.Limits{}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	return book
}

// start serves until the test ends and returns the socket's path.
func start(t *testing.T, b Backend, book *casebook.Book) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "run", "arbiter.sock")
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "arbiter_held 0\n") })
	s := New(b, book, metrics, Options{Socket: socket, Log: hclog.NewNullLogger()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	waitFor(t, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		info, serr := os.Stat(socket)
		return err == nil && serr == nil && info.Mode().Perm() == 0o660
	})
	return socket
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited for 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestOrdersReachTheBackend(t *testing.T) {
	t.Parallel()
	b := &fake{}
	c := api.New(start(t, b, newBook(t)))
	defer c.Close()
	ctx := context.Background()
	calls := []func() (api.Done, error){
		func() (api.Done, error) { return c.Resume(ctx, "7f3a", api.ResumeRequest{Raise: "25%"}) },
		func() (api.Done, error) { return c.Kill(ctx, "7f3a") },
		func() (api.Done, error) { return c.Extend(ctx, "7f3a", api.ExtendRequest{By: "10m"}) },
		func() (api.Done, error) { return c.Pause(ctx, api.PauseRequest{Target: "a/b/c", Rule: "r"}) },
		func() (api.Done, error) { return c.Disarm(ctx, api.DisarmRequest{All: true}) },
		func() (api.Done, error) { return c.Reload(ctx) },
	}
	for _, call := range calls {
		if done, err := call(); err != nil || done.Message != "done" {
			t.Errorf("%v, %v", done, err)
		}
	}
	uid := fmt.Sprintf("uid %d", os.Geteuid())
	want := []string{"resume 7f3a 25% " + uid, "kill 7f3a " + uid, "extend 7f3a 10m " + uid,
		"pause a/b/c r " + uid, `disarm "" true ` + uid, "reload " + uid}
	if diff := cmp.Diff(want, b.orders); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	if text, err := c.Explain(ctx, "a b&c"); err != nil || text != "because of a b&c" {
		t.Errorf("explain: %q, %v", text, err)
	}
	if s, err := c.Status(ctx); err != nil || s.Version != "1" {
		t.Errorf("status: %v, %v", s, err)
	}
}

func TestErrorsBecomeStatusCodes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err     error
		code    int
		message string
	}{
		"not found": {fmt.Errorf("%w: no case 7f3a", ErrNotFound), http.StatusNotFound, "no case 7f3a"},
		"conflict":  {fmt.Errorf("%w: case 7f3a is closed", ErrConflict), http.StatusConflict, "case 7f3a is closed"},
		"invalid":   {fmt.Errorf("raise: %w", ErrInvalid), http.StatusBadRequest, "raise: invalid request"},
		"other":     {errors.New("write memory.max: device busy"), http.StatusInternalServerError, "write memory.max: device busy"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := api.New(start(t, &fake{err: tt.err}, newBook(t)))
			defer c.Close()
			_, err := c.Kill(context.Background(), "7f3a")
			var se *api.StatusError
			if !errors.As(err, &se) || se.Code != tt.code || se.Message != tt.message {
				t.Errorf("got %+v, want %d %q", err, tt.code, tt.message)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	b := &fake{}
	socket := start(t, b, newBook(t))
	hc := httpClient(socket)
	tests := map[string]struct {
		method, path, body string
		code               int
	}{
		"unknown key":        {"POST", "/v1/cases/7f3a/resume", `{"rais":"1"}`, 400},
		"not JSON":           {"POST", "/v1/pause", `x`, 400},
		"huge body":          {"POST", "/v1/pause", `{"target":"` + strings.Repeat("x", maxBody) + `"}`, 400},
		"no target":          {"POST", "/v1/pause", `{}`, 400},
		"disarm nothing":     {"POST", "/v1/disarm", `{}`, 400},
		"disarm both":        {"POST", "/v1/disarm", `{"target":"x","all":true}`, 400},
		"path as id":         {"POST", "/v1/cases/%2e%2e%2fx/kill", ``, 400},
		"no such case":       {"GET", "/v1/cases/7f3a", ``, 404},
		"path as case":       {"GET", "/v1/cases/..%2f..%2fetc", ``, 400},
		"path as artifact":   {"GET", "/v1/cases/20261121T061502-7f3a/artifacts/..%2fcase.json", ``, 404},
		"filter":             {"GET", "/v1/cases?since=yesterday", ``, 400},
		"explain nothing":    {"GET", "/v1/explain", ``, 400},
		"method":             {"GET", "/v1/reload", ``, 405},
		"unknown path":       {"GET", "/v2/x", ``, 404},
		"delete is no order": {"DELETE", "/v1/cases/7f3a", ``, 405},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, "http://x"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.code {
				data, _ := io.ReadAll(resp.Body)
				t.Errorf("got %s: %s, want %d", resp.Status, data, tt.code)
			}
		})
	}
	if len(b.orders) != 0 {
		t.Errorf("orders came through: %q", b.orders)
	}
}

func httpClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

func TestCasesAndArtifacts(t *testing.T) {
	t.Parallel()
	book := newBook(t)
	kase, err := book.Create(&casebook.Record{ID: "20261121T061502-7f3a", Rule: "r", State: "held", Opened: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	kase.Log(casebook.Entry{At: time.Now(), What: "held"}, false)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	f, err := kase.Artifacts("core-dump").Create("core.1")
	if err == nil {
		_, err = f.Write(content)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	c := api.New(start(t, &fake{}, book))
	defer c.Close()
	ctx := context.Background()
	var l casebook.Listing
	if err := c.Get(ctx, "/v1/cases", nil, &l); err != nil || len(l.Cases) != 1 || l.Cases[0].Rule != "r" {
		t.Errorf("cases %+v, %v", l, err)
	}
	var full casebook.Full
	if err := c.Get(ctx, "/v1/cases/7f3a", nil, &full); err != nil || full.ID != kase.ID() || len(full.Timeline) != 1 || len(full.Artifacts) != 1 {
		t.Errorf("case %+v, %v", full, err)
	}
	for _, offset := range []int64{0, 5, int64(len(content)) - 1} {
		r, size, err := c.Artifact(ctx, kase.ID(), "core.1", offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || size != int64(len(content)) || !bytes.Equal(got, content[offset:]) {
			t.Errorf("from %d: %d bytes of %d, %v", offset, len(got), size, err)
		}
	}
	if _, _, err := c.Artifact(ctx, kase.ID(), "core.2", 0); err == nil || !strings.Contains(err.Error(), `"core.2": no such artifact`) {
		t.Errorf("a missing artifact: %v", err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	b := &fake{changed: make(chan struct{}), holds: []api.Hold{{ID: "1"}}}
	c := api.New(start(t, b, newBook(t)))
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var got []string
	err := c.WatchHolds(ctx, func(holds []api.Hold) error {
		got = append(got, holds[0].ID)
		switch len(got) {
		case 1:
			close(b.changed)
		case 3:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

// Clients that vanish leave nothing behind: neither watchers nor those that
// stop reading a large artifact. Not parallel: it counts goroutines.
func TestVanishedClients(t *testing.T) {
	book := newBook(t)
	kase, err := book.Create(&casebook.Record{ID: "20261121T061502-7f3a", Opened: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := kase.Artifacts("core-dump").Create("core.1")
	if err == nil {
		err = errors.Join(f.Truncate(1<<30), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := start(t, &fake{changed: make(chan struct{})}, book)
	before := runtime.NumGoroutine()
	for range 20 {
		c := api.New(socket)
		ctx, cancel := context.WithCancel(context.Background())
		err := c.WatchHolds(ctx, func([]api.Hold) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		r, size, err := c.Artifact(context.Background(), kase.ID(), "core.1", 0)
		if err != nil || size != 1<<30 {
			t.Fatal(size, err)
		}
		io.ReadFull(r, make([]byte, 4096))
		r.Close()
		c.Close()
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before })
}

func TestServeRefusesALiveDaemonsSocket(t *testing.T) {
	t.Parallel()
	socket := start(t, &fake{}, newBook(t))
	s := New(&fake{}, newBook(t), http.NotFoundHandler(), Options{Socket: socket, Log: hclog.NewNullLogger()})
	if err := s.Serve(context.Background()); !errors.Is(err, ErrInUse) {
		t.Errorf("a second daemon: %v", err)
	}
	if _, err := api.New(socket).Status(context.Background()); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	ln, err = listen(stale, access{})
	if err != nil {
		t.Fatalf("a dead daemon's socket: %v", err)
	}
	ln.Close()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, err := listen(file, access{}); err == nil {
		t.Error("a file was taken for a socket")
	}
	if data, _ := os.ReadFile(file); string(data) != "precious" {
		t.Error("the file was touched")
	}
	if _, err := newAccess("no-such-group"); err == nil || !strings.Contains(err.Error(), `"no-such-group" does not exist`) {
		t.Errorf("an unknown group: %v", err)
	}
}
