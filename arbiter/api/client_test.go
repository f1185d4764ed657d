package api

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUnreachable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	mute := filepath.Join(dir, "mute")
	ln, err = net.Listen("unix", mute)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	hangup := filepath.Join(dir, "hangup")
	hl, err := net.Listen("unix", hangup)
	if err != nil {
		t.Fatal(err)
	}
	defer hl.Close()
	go func() {
		for {
			c, err := hl.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096)) // the request
			c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"))
			c.Close()
		}
	}()
	tests := map[string]string{
		filepath.Join(dir, "none"): "there is no socket",
		stale:                      "nobody listens",
		mute:                       "does not answer",
		hangup:                     "closed the connection",
	}
	for socket, says := range tests {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := New(socket).Holds(ctx)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", filepath.Base(socket), err, says)
		}
	}
}

// The package is the contract with other people's programs: it drags nothing in.
func TestStandardLibraryOnly(t *testing.T) {
	// Not in parallel: a program being started keeps other tests' sockets open.
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != "github.com/arbiterd/arbiter/arbiter/api" {
		t.Errorf("it depends on\n%s", got)
	}
}
