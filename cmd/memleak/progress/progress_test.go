package progress

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriterAndReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	before := Now()
	w.Touched(3)
	second, err := Create(path) // another process of the same run
	if err != nil {
		t.Fatal(err)
	}
	second.Touched(4)
	w.Failed("mlock", unix.EAGAIN)
	w.Short("read")
	w.Checked(5, 1)
	for range ringSize + 7 {
		w.Mark()
	}
	r, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Pages != 7 || r.Checked != 5 || r.Mismatches != 1 {
		t.Errorf("got %+v", r)
	}
	if r.Errors["mlock"] != 1 || r.LastErrno["mlock"] != unix.EAGAIN || r.Shorts["read"] != 1 || r.TotalErrors() != 2 {
		t.Errorf("errors: %v %v %v", r.Errors, r.LastErrno, r.Shorts)
	}
	if r.LastTouch < before || r.LastTouch > Now() || r.Begun > before {
		t.Errorf("times: begun %d, before %d, last touch %d, now %d", r.Begun, before, r.LastTouch, Now())
	}
	if len(r.Samples) != ringSize {
		t.Errorf("%d samples, want the newest %d", len(r.Samples), ringSize)
	}
	if s := r.String(); !strings.Contains(s, "errors       mlock 1") {
		t.Errorf("String() = %q", s)
	}
}

func TestReadRefusesOtherFiles(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{"empty": nil, "short": []byte("memleak1"), "other": bytes.Repeat([]byte("x"), 1<<20)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "p")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); !errors.Is(err, ErrFormat) {
				t.Errorf("got %v, want ErrFormat", err)
			}
		})
	}
}
