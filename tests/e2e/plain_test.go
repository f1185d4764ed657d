package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/cri"
)

// A plain container is one that runc runs without any manager, in a cgroup as
// docker or podman would name it.
type plainContainer struct {
	n      *node
	id     string
	cgroup string
}

// runPlain runs memleak in a bundle of its own.
func (n *node) runPlain(id, cgroup string, limit int64, args ...string) *plainContainer {
	n.t.Helper()
	bundle := n.path("bundle-" + id)
	for _, dir := range []string{"proc", "sys", "dev"} {
		must(os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o755))
	}
	program, err := os.ReadFile(filepath.Join(n.bin, "memleak"))
	must(err)
	must(os.WriteFile(filepath.Join(bundle, "rootfs/memleak"), program, 0o755))
	namespaces := []map[string]string{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}}
	must(os.WriteFile(filepath.Join(bundle, "config.json"), marshal(map[string]any{
		"ociVersion": "1.0.2",
		"process":    map[string]any{"args": append([]string{"/memleak"}, args...), "cwd": "/", "user": map[string]int{"uid": 0}},
		"root":       map[string]any{"path": "rootfs"},
		"mounts":     []map[string]string{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux": map[string]any{"cgroupsPath": cgroup, "namespaces": namespaces,
			"resources": map[string]any{"memory": map[string]int64{"limit": limit}}},
	}), 0o600))
	c := &plainContainer{n: n, id: id, cgroup: cgroup}
	if out, err := c.runc("run", "-d", "--bundle", bundle, id); err != nil {
		n.t.Fatalf("runc run: %v\n%s", err, out)
	}
	n.t.Cleanup(func() {
		if out, err := c.runc("delete", "--force", id); err != nil {
			n.t.Errorf("clean up: runc delete: %v\n%s", err, out)
		}
	})
	return c
}

// runc keeps its files apart from containerd's. Its children get no pipe of
// ours, on which a wait would last as long as the container.
func (c *plainContainer) runc(args ...string) (string, error) {
	out, err := os.CreateTemp(c.n.dir, "out-")
	must(err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(c.n.bin, "runc"), append([]string{"--root", c.n.path("plain-runc")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	b, rerr := os.ReadFile(out.Name())
	return string(b), errors.Join(err, rerr)
}

func (c *plainContainer) status() string {
	out, err := c.runc("state", c.id)
	if err != nil {
		return err.Error() + out
	}
	var st struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return err.Error()
	}
	return st.Status
}

// TestPlainRunc holds and kills containers that no CRI knows: all that is
// known of them is in their cgroup's path.
func TestPlainRunc(t *testing.T) {
	n := newNode(t, nodeOptions{})
	d := n.startArbiter(t, `[[rule]]
name = "plain"
[rule.match]
cgroup = ["/`+n.name+`/**"]
[rule.trigger]
on = "limit"
[rule.verdict]
do = "hold"
hold-for = "10m"
otherwise = "kill"
`, "/"+n.name+"/docker/*", "/"+n.name+"/machine.slice/libpod-*.scope")
	id := strings.Repeat("0123456789abcdef", 4)
	for name, cgroup := range map[string]string{
		"docker": "/" + n.name + "/docker/" + id,
		"podman": "/" + n.name + "/machine.slice/libpod-" + id + ".scope",
	} {
		t.Run(name, func(t *testing.T) {
			c := n.runPlain(name, cgroup, 32*mib, leaking...)
			var h api.Hold
			eventually(t, long, "held", func() error {
				var holds []api.Hold
				if err := d.try(&holds, "pause-list"); err != nil {
					return err
				}
				for _, h = range holds {
					if h.Cgroup == cgroup {
						return nil
					}
				}
				return fmt.Errorf("held are %+v; runc says %s", holds, c.status())
			})
			if h.ContainerID != id || h.Pod != "" || c.status() != "paused" {
				t.Errorf("pause-list says %+v, runc says %q", h, c.status())
			}
			d.do("kill", h.ID)
			eventually(t, long, "killed", func() error {
				if s := c.status(); s != "stopped" {
					return errors.New(s)
				}
				return nil
			})
		})
	}
}

// TestOtherNamespace follows containers of a containerd namespace that is not
// the kubelet's (nerdctl, docker, ctr).
func TestOtherNamespace(t *testing.T) {
	n := newNode(t, nodeOptions{})
	r := record(t, n.containerdSource(), nil)
	client := n.client()
	ctx := namespaces.WithNamespace(context.Background(), "plain")
	program, err := os.ReadFile(filepath.Join(n.bin, "memleak"))
	must(err)
	images, err := client.Import(ctx, strings.NewReader(string(imageTar(program, leakImage))))
	if err != nil {
		t.Fatal(err)
	}
	image := containerd.NewImage(client, images[0])
	if err := image.Unpack(ctx, snapshotter()); err != nil {
		t.Fatal(err)
	}
	cgroup := "/" + n.name + "/plain/one"
	c, err := client.NewContainer(ctx, "one", containerd.WithSnapshotter(snapshotter()), containerd.WithNewSnapshot("one", image), containerd.WithImageName(leakImage),
		containerd.WithRuntime("io.containerd.runc.v2", n.runtimeOptions()),
		containerd.WithNewSpec(oci.WithImageConfig(image), oci.WithCgroup(cgroup), oci.WithProcessArgs("/memleak", "--ceiling", "1MiB")))
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		t.Fatal(err)
	}
	must(task.Start(ctx))
	var got cri.Container
	r.wait("the container is told of", func() (ok bool) {
		got, ok = r.now[cgroup]
		return ok
	})
	if got.ID != "one" || got.Name != "one" || got.Pid == 0 || got.Pod.Name != "" || got.Image != leakImage {
		t.Errorf("got %+v", got)
	}
	exit, err := task.Wait(ctx)
	must(err)
	must(task.Kill(ctx, syscall.SIGKILL))
	select {
	case <-exit:
	case <-time.After(short):
		t.Fatal("does not end")
	}
	r.wait("it is taken back", func() bool { return len(r.now) == 0 })
	if _, err := task.Delete(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		t.Error(err)
	}
}
