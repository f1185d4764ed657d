package report

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]policy.Size{"room": {}, "no room": {Bytes: 10 << 10}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			book, err := casebook.Open(t.TempDir(), casebook.Limits{CaseBytes: limit}, hclog.NewNullLogger())
			if err != nil {
				t.Fatal(err)
			}
			defer book.Close()
			c, err := book.Create(&casebook.Record{Rule: "jvm-heap", Opened: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"processes.txt", "core.1"} {
				f, err := c.Artifacts("snapshot").Create(name)
				if err == nil {
					_, err = f.Write([]byte("content of " + name))
				}
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(c.Dir(), "report.html")
			err = Keep(book, c)
			if !limit.IsZero() {
				if _, serr := os.Stat(path); !errors.Is(err, casebook.ErrNoRoom) || serr == nil {
					t.Errorf("over the budget: %v, %v", err, serr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if page := string(data); !strings.Contains(page, "content of processes.txt") || strings.Contains(page, "content of core") {
				t.Error("the report shows other artifacts than it should")
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}
