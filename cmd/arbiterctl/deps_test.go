package main

import (
	"os/exec"
	"strings"
	"testing"
)

// arbiterctl is copied to laptops and into small images: it must not grow a
// runtime's client.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const own = "github.com/arbiterd/arbiter/"
	allowed := map[string]bool{
		own + "cmd/arbiterctl": true, own + "policy": true, own + "cri": true, own + "arbiter/api": true,
		own + "arbiter/casebook": true, own + "arbiter/report": true, own + "arbiter/policyfs": true,
		own + "arbiter/jvm": true, own + "arbiter/proc": true, // convert
	}
	seen := 0
	for pkg := range strings.Lines(string(out)) {
		pkg = strings.TrimSpace(pkg)
		for _, banned := range []string{"github.com/containerd/", "google.golang.org/grpc", "google.golang.org/protobuf", "github.com/minio/", "github.com/prometheus/"} {
			if strings.HasPrefix(pkg, banned) {
				t.Errorf("arbiterctl depends on %s", pkg)
			}
		}
		if strings.HasPrefix(pkg, own) {
			seen++
			if !allowed[pkg] {
				t.Errorf("arbiterctl depends on %s", pkg)
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d of its own packages, want %d", seen, len(allowed))
	}
}
