package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
)

// long is for what takes seconds on an idle machine.
const long = 2 * time.Minute

// A daemon is arbiterd under its supervisor, beside a node.
type daemon struct {
	n   *node
	t   testing.TB
	dir string
	cmd *exec.Cmd
	end chan error
}

const arbiterConfig = `[api]
socket = "%[1]s/sock"
[policy]
dirs = ["%[1]s/policy.d"]
[state]
dir = "%[1]s/state"
min-free = "0%%"
[source.containerd]
address = "%[2]s/containerd.sock"
[source.nri]
socket = "%[2]s/nri.sock"
[source.cgroupfs]
paths = [%[3]s]
[node]
max-pressure = "100%%"
[budget]
armed = 256
[log]
level = "debug"
`

// startArbiter starts the daemon with one policy file and waits until the
// runtime's sources are up.
func (n *node) startArbiter(t testing.TB, policy string, globs ...string) *daemon {
	t.Helper()
	daemonBinaries(t)
	dir, err := os.MkdirTemp(n.dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{n: n, t: t, dir: dir}
	var quoted []string
	for _, g := range globs {
		quoted = append(quoted, fmt.Sprintf("%q", g))
	}
	must(os.Mkdir(filepath.Join(dir, "policy.d"), 0o755))
	d.write("arbiter.toml", fmt.Sprintf(arbiterConfig, dir, n.dir, strings.Join(quoted, ", ")))
	d.write("policy.d/10-test.toml", policy)
	d.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("arbiterd's last words:\n%s", tail(filepath.Join(dir, "log"), 120))
		}
		d.stop()
	})
	return d
}

func (d *daemon) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.n.bin, "arbiterd"), "supervise", "--config", filepath.Join(d.dir, "arbiter.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.end = make(chan error, 1)
	go func() { d.end <- d.cmd.Wait() }()
	d.awaitSources(true)
}

// awaitSources waits until containerd and NRI are both up, or both down.
func (d *daemon) awaitSources(up bool) {
	d.t.Helper()
	eventually(d.t, long, fmt.Sprintf("the sources' state is %v", up), func() error {
		var st api.Status
		if err := d.try(&st, "status"); err != nil {
			return err
		}
		seen := 0
		for _, s := range st.Sources {
			if (s.Name == "containerd" || s.Name == "nri") && s.Up == up {
				seen++
			}
		}
		if seen != 2 {
			return fmt.Errorf("sources %+v", st.Sources)
		}
		return nil
	})
}

// workerPid is the daemon itself, not its supervisor.
func (d *daemon) workerPid() int {
	d.t.Helper()
	var st api.Status
	eventually(d.t, long, "the daemon answers", func() error { return d.try(&st, "status") })
	return st.Pid
}

func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.end:
		if err != nil {
			d.t.Errorf("arbiterd ended with %v", err)
		}
	case <-time.After(long):
		d.t.Errorf("arbiterd does not end")
		_ = d.cmd.Process.Kill()
	}
	d.cmd = nil
}

// ctl runs arbiterctl.
func (d *daemon) ctl(args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.n.bin, "arbiterctl"), append([]string{"--socket", filepath.Join(d.dir, "sock")}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("arbiterctl %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// do is ctl for what must succeed.
func (d *daemon) do(args ...string) string {
	d.t.Helper()
	out, err := d.ctl(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// try decodes what a command prints as JSON.
func (d *daemon) try(v any, args ...string) error {
	out, err := d.ctl(append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

func (c *container) String() string {
	m := c.p.config.GetMetadata()
	return m.GetNamespace() + "/" + m.GetName() + "/" + c.name
}

// awaitGuard waits until the container is guarded.
func (d *daemon) awaitGuard(c *container) (found api.Guard) {
	d.t.Helper()
	eventually(d.t, long, fmt.Sprintf("%s is guarded", c), func() error {
		var guards []api.Guard
		if err := d.try(&guards, "guards"); err != nil {
			return err
		}
		for _, g := range guards {
			if g.ContainerID != c.id {
				continue
			}
			found = g
			if slices.Contains([]string{"armed", "partial", "guarded"}, g.State) {
				return nil
			}
			return fmt.Errorf("guard %+v", g)
		}
		return errors.New("no guard")
	})
	return found
}

// awaitHold waits until the container stands still by a case.
func (d *daemon) awaitHold(c *container) (found api.Hold) {
	d.t.Helper()
	eventually(d.t, long, c.String()+" is held", func() error {
		var holds []api.Hold
		if err := d.try(&holds, "pause-list"); err != nil {
			return err
		}
		for _, h := range holds {
			if h.ContainerID == c.id {
				found = h
				return nil
			}
		}
		st := c.status(d.t)
		return fmt.Errorf("held are %+v; the container is %v, %s", holds, st.GetState(), st.GetReason())
	})
	return found
}

// awaitClosed waits for the end of the container's latest case.
func (d *daemon) awaitClosed(c *container) (found *casebook.Record) {
	d.t.Helper()
	eventually(d.t, long, "the case of "+c.String()+" is closed", func() error {
		var cases []*casebook.Record
		if err := d.try(&cases, "cases", "--container", c.id); err != nil {
			return err
		}
		if len(cases) == 0 {
			return errors.New("no case")
		}
		found = cases[0]
		if found.State != "closed" {
			return fmt.Errorf("case is %s", found.State)
		}
		return nil
	})
	return found
}

// standsStill checks that the runtime and the kernel see the container frozen.
func (d *daemon) standsStill(c *container) {
	d.t.Helper()
	pids := strings.Fields(read(d.t, filepath.Join(memoryRoot(), c.cgroup(), "cgroup.procs")))
	if len(pids) == 0 {
		d.t.Fatalf("%s has no process left", c)
	}
	if isV2() {
		if got := read(d.t, filepath.Join(memoryRoot(), c.cgroup(), "cgroup.events")); !strings.Contains(got, "frozen 1") {
			d.t.Errorf("%s: cgroup.events %q", c, got)
		}
		return
	}
	if got := read(d.t, filepath.Join("/sys/fs/cgroup/freezer", c.cgroup(), "freezer.state")); got != "FROZEN" {
		d.t.Errorf("%s: freezer.state %q", c, got)
	}
}
