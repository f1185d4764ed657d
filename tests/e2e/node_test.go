package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A node is a private containerd with everything that a kubelet would use of
// it, and a cgroup below which all its pods live.
type node struct {
	t    testing.TB
	bin  string
	dir  string // holds everything; short, since socket paths are limited to 108 bytes
	name string // of the cgroup in every hierarchy, without the slash
	opts nodeOptions

	cmd  *exec.Cmd
	done chan struct{} // closed when containerd has ended
	conn *grpc.ClientConn
	cri  runtime.RuntimeServiceClient
}

type nodeOptions struct {
	requirePlugin bool // fail closed: no container without the plugin
}

const containerdConfig = `version = 4
root = '{{.Dir}}/root'
state = '{{.Dir}}/state'
imports = [{{.Imports}}]
[plugins.'io.containerd.server.v1.grpc']
  address = '{{.Dir}}/containerd.sock'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{{.Dir}}/containerd.sock.ttrpc'
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '{{.Dir}}/s'
[plugins.'io.containerd.internal.v1.opt']
  path = '{{.Dir}}/opt'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{{.Snapshotter}}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{{.Pause}}'
[plugins.'io.containerd.cri.v1.runtime']
  # Negative scores need CAP_SYS_RESOURCE, which not every machine's root has.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{{.Bin}}/runc'
      Root = '{{.Dir}}/runc'
[plugins.'io.containerd.nri.v1.nri']
  socket_path = '{{.Dir}}/nri.sock'
  plugin_path = '{{.Dir}}/nri/plugins'
  plugin_config_path = '{{.Dir}}/nri/conf.d'
`

// newNode boots a containerd and imports the images. Everything of it is gone
// when the test is over.
func newNode(t testing.TB, opts nodeOptions) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers")
	}
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, bin: binaries(t), dir: dir, name: "arbiter-" + filepath.Base(dir), opts: opts}
	t.Cleanup(n.destroy)
	n.writeConfig()
	n.start()
	n.importImages()
	return n
}

func (n *node) writeConfig() {
	n.t.Helper()
	imports := ""
	if n.opts.requirePlugin {
		shipped, err := os.ReadFile("../../etc/kubernetes/containerd-require-arbiter.toml")
		if err != nil {
			n.t.Fatal(err)
		}
		must(os.WriteFile(n.path("require.toml"), shipped, 0o600))
		imports = "'" + n.path("require.toml") + "'"
	}
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(containerdConfig)).Execute(&b, map[string]any{
		"Dir": n.dir, "Bin": n.bin, "Pause": pauseImage, "Snapshotter": snapshotter(), "Imports": imports,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(n.path("config.toml"), b.Bytes(), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// snapshotter prefers overlayfs, which kernels for guests lack as a built-in.
func snapshotter() string {
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && strings.Contains(string(b), "overlay") {
		return "overlayfs"
	}
	return "native"
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }
func (n *node) socket() string          { return n.path("containerd.sock") }

// start runs containerd and waits until the CRI says that it is ready.
func (n *node) start() {
	n.t.Helper()
	log, err := os.OpenFile(n.path("containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(n.bin, "containerd"), "--config", n.path("config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+n.bin+":"+os.Getenv("PATH")) // the shim is found by PATH
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.cmd, n.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(n.done)
	n.conn, err = grpc.NewClient("unix:"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		n.t.Fatal(err)
	}
	n.cri = runtime.NewRuntimeServiceClient(n.conn)
	n.waitReady()
}

func (n *node) waitReady() {
	n.t.Helper()
	eventually(n.t, time.Minute, "containerd is ready", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		rsp, err := n.cri.Status(ctx, &runtime.StatusRequest{})
		if err != nil {
			return err
		}
		for _, c := range rsp.GetStatus().GetConditions() {
			if c.GetType() == "RuntimeReady" && c.GetStatus() {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", rsp.GetStatus().GetConditions())
	})
}

// stop ends containerd with a signal; its shims and containers stay.
func (n *node) stop(sig syscall.Signal) {
	n.t.Helper()
	n.conn.Close()
	if err := n.cmd.Process.Signal(sig); err != nil {
		n.t.Fatalf("stop containerd: %v", err)
	}
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		n.t.Fatalf("containerd does not end on %v", sig)
	}
}

func (n *node) running() bool {
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// destroy removes pods, containerd, its shims, mounts, cgroups and files.
func (n *node) destroy() {
	if n.t.Failed() {
		n.t.Logf("containerd's last words:\n%s", tail(n.path("containerd.log"), 30))
	}
	if n.cmd != nil {
		if !n.running() {
			n.start()
		}
		n.removePods()
		n.stop(syscall.SIGTERM)
	}
	n.killShims()
	unmountBelow(n.t, n.dir)
	n.removeCgroups()
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Errorf("clean up: %v", err)
	}
}

func (n *node) removePods() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	rsp, err := n.cri.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		n.t.Errorf("clean up: list pods: %v", err)
		return
	}
	for _, p := range rsp.GetItems() {
		if _, err := n.cri.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			n.t.Errorf("clean up: stop pod: %v", err)
		}
		if _, err := n.cri.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			n.t.Errorf("clean up: remove pod: %v", err)
		}
	}
}

// killShims ends what a failed test left: shims know their containerd by its
// socket, which no other has.
func (n *node) killShims() {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range procs {
		b, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(b), "containerd-shim") || !strings.Contains(string(b), n.dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(name, "/")[2])
		if err != nil {
			continue
		}
		n.t.Errorf("clean up: shim %d was left", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// runtimeOptions are runc's for containers that the CRI does not make.
func (n *node) runtimeOptions() *options.Options {
	return &options.Options{BinaryName: filepath.Join(n.bin, "runc"), Root: n.path("runc")}
}

// client is containerd's own client, for images and for what the CRI lacks.
func (n *node) client() *containerd.Client {
	n.t.Helper()
	c, err := containerd.New(n.socket(), containerd.WithDefaultNamespace("k8s.io"), containerd.WithTimeout(30*time.Second))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}
