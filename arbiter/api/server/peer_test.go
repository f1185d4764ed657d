package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
)

// TestMain lets the test binary play a peer of another user: it sends one
// request and prints the answer.
func TestMain(m *testing.M) {
	socket, req := os.Getenv("ARBITER_TEST_SOCKET"), os.Getenv("ARBITER_TEST_REQUEST")
	if socket == "" {
		os.Exit(m.Run())
	}
	method, path, _ := strings.Cut(req, " ")
	r, err := http.NewRequest(method, "http://x"+path, nil)
	if err != nil {
		panic(err)
	}
	resp, err := httpClient(socket).Do(r)
	if err != nil {
		panic(err)
	}
	fmt.Print(resp.StatusCode)
}

// asUser sends a request with another identity and returns the status code.
func asUser(t *testing.T, socket, req string, cred syscall.Credential) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Other users cannot reach the build directory: copy the binary.
	pub := filepath.Join("/tmp", fmt.Sprintf("arbiter-api-test-%d", os.Getpid()))
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pub); err != nil {
		if err := os.WriteFile(pub, data, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(pub) })
	}
	cmd := exec.Command(pub)
	cmd.Dir = "/"
	cmd.Env = []string{"ARBITER_TEST_SOCKET=" + socket, "ARBITER_TEST_REQUEST=" + req}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestPeersMayDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to play other users")
	}
	b := &fake{}
	dir, err := os.MkdirTemp("/tmp", "arbiter-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := New(b, newBook(t), http.NotFoundHandler(), Options{Socket: filepath.Join(dir, "s"), Group: "4242", Log: hclog.NewNullLogger()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	waitFor(t, func() bool {
		info, err := os.Stat(filepath.Join(dir, "s"))
		return err == nil && info.Mode().Perm() == 0o660 && info.Sys().(*syscall.Stat_t).Gid == 4242
	})
	// Whoever opens the socket to everybody opens the API to nobody more.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "s"), 0o666)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cred        syscall.Credential
		read, write string
	}{
		"root":             {syscall.Credential{}, "200", "200"},
		"group":            {syscall.Credential{Uid: 1234, Gid: 4242}, "200", "403"},
		"in group as well": {syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{1, 2, 4242}}, "200", "403"},
		"stranger":         {syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{1, 2}}, "403", "403"},
		"root's group":     {syscall.Credential{Uid: 1234, Gid: 0}, "403", "403"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := asUser(t, filepath.Join(dir, "s"), "GET /v1/status", tt.cred); got != tt.read {
				t.Errorf("read: %s, want %s", got, tt.read)
			}
			if got := asUser(t, filepath.Join(dir, "s"), "POST /v1/reload", tt.cred); got != tt.write {
				t.Errorf("write: %s, want %s", got, tt.write)
			}
		})
	}
	if diff := cmp.Diff([]string{"reload uid 0"}, b.orders); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
}
