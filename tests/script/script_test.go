// Package script runs the real arbiterctl against the real server on a
// temporary socket, with a real casebook and an engine that plays a scenario:
// stdout, stderr and exit code of each command and of its errors.
//
// Commands of the scripts beside testscript's own:
//
//	serve SCENE.json          start the daemon's API, or change what it tells
//	stop                      stop it
//	case RECORD.json          put a case into the casebook ("@-2h" is a time)
//	artifact CASE STEP FILE   give a case an artifact; put it before `case`
//	code N ARBITERCTL-ARGS    run arbiterctl and want that exit code
package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/arbiterd/arbiter/arbiter/api/server"
	"github.com/arbiterd/arbiter/arbiter/casebook"
)

func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v1.2.3-test", "-o", bin, "../../cmd/arbiterctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build arbiterctl: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// A socket's path has room for 107 bytes: the work directory's is too long.
			dir, err := os.MkdirTemp("", "arb")
			if err != nil {
				return err
			}
			w := &world{dir: dir, work: env.WorkDir}
			env.Defer(w.end)
			env.Values[worldKey{}] = w
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("ARBITER_SOCKET", filepath.Join(dir, "s"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":    serve,
			"stop":     func(ts *testscript.TestScript, _ bool, _ []string) { theWorld(ts).stop() },
			"case":     putCase,
			"artifact": putArtifact,
			"code":     code,
		},
	})
}

type worldKey struct{}

// world is the daemon that one script talks to.
type world struct {
	dir, work string
	backend   *backend
	book      *casebook.Book
	cases     map[string]*casebook.Case
	stopServe func()
}

func theWorld(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) end() {
	w.stop()
	if w.book != nil {
		w.book.Close()
	}
	os.RemoveAll(w.dir)
}

func (w *world) stop() {
	if w.stopServe != nil {
		w.stopServe()
		w.stopServe = nil
	}
}

func (w *world) openBook() (*casebook.Book, error) {
	if w.book != nil {
		return w.book, nil
	}
	book, err := casebook.Open(filepath.Join(w.dir, "state"), casebook.Limits{}, hclog.NewNullLogger())
	w.book, w.cases = book, map[string]*casebook.Case{}
	return book, err
}

func serve(ts *testscript.TestScript, _ bool, args []string) {
	w := theWorld(ts)
	s, err := parseScene(ts.ReadFile(args[0]), time.Now())
	ts.Check(err)
	book, err := w.openBook()
	ts.Check(err)
	if w.stopServe != nil {
		w.backend.set(s)
		return
	}
	w.backend = &backend{orders: filepath.Join(w.work, "orders"), socket: filepath.Join(w.dir, "s")}
	w.backend.set(s)
	metrics := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "arbiter_held 0\n") })
	srv := server.New(w.backend, book, metrics, server.Options{Socket: w.backend.socket, Log: hclog.NewNullLogger()})
	ts.Check(srv.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx) }()
	w.stopServe = func() {
		cancel()
		<-ended
	}
}

// putCase saves a record, and closes the case if the record is closed.
func putCase(ts *testscript.TestScript, _ bool, args []string) {
	w := theWorld(ts)
	book, err := w.openBook()
	ts.Check(err)
	now := time.Now()
	var r casebook.Record
	data := ts.ReadFile(args[0])
	for strings.Contains(data, `"@`) {
		before, rest, _ := strings.Cut(data, `"@`)
		offset, after, _ := strings.Cut(rest, `"`)
		d, err := time.ParseDuration(offset)
		ts.Check(err)
		data = before + `"` + now.Add(d).Format(time.RFC3339Nano) + `"` + after
	}
	ts.Check(json.Unmarshal([]byte(data), &r))
	c := w.cases[r.ID]
	if c == nil {
		c, err = book.Create(&r)
		ts.Check(err)
		w.cases[r.ID] = c
	}
	ts.Check(c.Log(casebook.Entry{At: r.Opened, What: "opened", Data: map[string]string{"why": r.Facts.Why}}, true))
	list, err := c.Finish(context.Background())
	ts.Check(err)
	r.Artifacts = list
	ts.Check(c.Save(&r))
	if !r.Closed.IsZero() {
		ts.Check(c.Close())
		delete(w.cases, r.ID)
	}
}

// putArtifact makes the case if need be; `case` fills in its record.
func putArtifact(ts *testscript.TestScript, _ bool, args []string) {
	w := theWorld(ts)
	book, err := w.openBook()
	ts.Check(err)
	c := w.cases[args[0]]
	if c == nil {
		c, err = book.Create(&casebook.Record{ID: args[0], State: "held", Opened: time.Now()})
		ts.Check(err)
		w.cases[args[0]] = c
	}
	f, err := c.Artifacts(args[1]).Create(filepath.Base(args[2]))
	ts.Check(err)
	_, err = f.Write([]byte(ts.ReadFile(args[2])))
	ts.Check(errors.Join(err, f.Close()))
}

// code runs arbiterctl and compares the exit code; stdout and stderr are then
// what the script's `stdout` and `stderr` look at.
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("arbiterctl", args[1:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s", fmt.Sprintf("exit code %d, want %d", got, want))
	}
}
