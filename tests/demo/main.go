// Command demo shows Arbiter's main job on this machine: a leaking process in
// a cgroup of its own is held at its limit, looked at, resumed once with more
// room, held again and killed. It runs the real programs of bin/ as they are,
// with a state directory, socket and policy of its own, and leaves nothing
// behind.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// limitBytes is the limit of the demo's cgroup.
const limitBytes = 64 << 20

const policyText = `# The demo's policy: look twice, give one second chance.
[[rule]]
name = "demo"
[rule.match]
cgroup = ["%s"]
[rule.trigger]
on = "limit"
cooldown = "0s"
[[rule.step]]
action = "exec"
argv = ["/bin/echo", "any program, with the case as JSON on its standard input"]
[[rule.step]]
action = "core-dump"
timeout = "30s"
[[rule.step]]
action = "wait"
for = "3s"
[rule.verdict]
do = "resume"
raise = "50%%"
resumes = 1
otherwise = "kill"
`

const configText = `[api]
socket = "%[1]s/arbiter.sock"
[policy]
dirs = ["%[1]s/policy.d"]
[state]
dir = "%[1]s/state"
min-free = "0%%"
[source.containerd]
address = ""
[source.nri]
socket = ""
[source.cgroupfs]
paths = ["%[2]s"]
[log]
level = "warn"
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	bin, err := binaries()
	if err != nil {
		return err
	}
	cg, err := newCgroup()
	if err != nil {
		return err
	}
	defer cg.remove()
	dir, err := os.MkdirTemp("", "arbiter-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{bin: bin, dir: dir, cg: cg}
	if err := d.configure(); err != nil {
		return err
	}
	stop, err := d.startDaemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return d.play(ctx)
}

// binaries is the directory of the programs that make has built.
func binaries() (string, error) {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"arbiterd", "arbiterctl", "memleak"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return "", fmt.Errorf("%w: run `make demo` at the top of the source tree", err)
		}
	}
	return bin, nil
}

// demo is one run.
type demo struct {
	bin, dir string
	cg       *cgroup
}

func (d *demo) configure() error {
	if err := os.Mkdir(filepath.Join(d.dir, "policy.d"), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.dir, "policy.d", "demo.toml"), fmt.Appendf(nil, policyText, d.cg.path), 0o644),
		os.WriteFile(filepath.Join(d.dir, "arbiter.toml"), fmt.Appendf(nil, configText, d.dir, d.cg.path), 0o644))
}

// startDaemon starts the daemon under its supervisor and waits until the demo's
// cgroup is guarded.
func (d *demo) startDaemon(ctx context.Context) (stop func(), err error) {
	cmd := exec.Command(filepath.Join(d.bin, "arbiterd"), "supervise", "--config", filepath.Join(d.dir, "arbiter.toml"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	}
	say("arbiterd is starting, with one rule for the cgroup %s", d.cg.path)
	guarded := func() bool {
		out, err := d.ctl(ctx, "guards", "-o", "json")
		var guards []struct{ Cgroup, State string }
		if err != nil || json.Unmarshal(out, &guards) != nil {
			return false
		}
		for _, g := range guards {
			if g.Cgroup == d.cg.path && (g.State == "armed" || g.State == "partial") {
				return true
			}
		}
		return false
	}
	if err := until(ctx, exited, guarded); err != nil {
		stop()
		return nil, fmt.Errorf("the cgroup was not guarded: %w", err)
	}
	return stop, nil
}

// ctl runs arbiterctl.
func (d *demo) ctl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "arbiterctl"), append([]string{"--socket", filepath.Join(d.dir, "arbiter.sock")}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("arbiterctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// show runs arbiterctl and prints what it says.
func (d *demo) show(ctx context.Context, args ...string) error {
	out, err := d.ctl(ctx, args...)
	if err != nil {
		return err
	}
	fmt.Printf("\n    $ arbiterctl %s\n", strings.Join(args, " "))
	for line := range strings.Lines(string(out)) {
		fmt.Print("    " + line)
	}
	fmt.Println()
	return nil
}

// hold is what the demo reads of pause-list.
type hold struct{ ID, State, Step string }

func (d *demo) holds(ctx context.Context) []hold {
	var hs []hold
	out, err := d.ctl(ctx, "pause-list", "-o", "json")
	if err != nil || json.Unmarshal(out, &hs) != nil {
		return nil
	}
	return hs
}

// play tells the story.
func (d *demo) play(ctx context.Context) error {
	args := []string{"--rate", "100MiB/s"}
	for _, dir := range d.cg.dirs {
		args = append(args, "--cgroup", dir)
	}
	leak := exec.Command(filepath.Join(d.bin, "memleak"), args...)
	if err := leak.Start(); err != nil {
		return err
	}
	died := make(chan struct{})
	go func() { _ = leak.Wait(); close(died) }()
	defer func() { _ = leak.Process.Kill(); <-died }()
	say("memleak (pid %d) takes 100 MiB/s; the limit is %d MiB. The kernel alone would kill it there.", leak.Process.Pid, limitBytes>>20)

	first, err := d.held(ctx, died, "")
	if err != nil {
		return err
	}
	say("HELD. The limit is reached; nothing died. The process stands still while the steps run:")
	if err := d.show(ctx, "pause-list"); err != nil {
		return err
	}
	if err := until(ctx, died, func() bool { hs := d.holds(ctx); return len(hs) == 0 || hs[0].ID != first }); err != nil {
		return fmt.Errorf("the first case did not end: %w", err)
	}
	say("RESUMED with 50 %% more room. It goes on leaking ...")
	second, err := d.held(ctx, died, first)
	if err != nil {
		return err
	}
	say("HELD again, at the raised limit. Its one resume is used, so the verdict will be `otherwise`:")
	if err := d.show(ctx, "pause-list"); err != nil {
		return err
	}
	if err := until(ctx, nil, func() bool { return closed(died) }); err != nil {
		return fmt.Errorf("the second case did not end: %w", err)
	}
	if err := until(ctx, nil, func() bool { return len(d.holds(ctx)) == 0 }); err != nil {
		return err
	}
	say("KILLED, and this is what is left to answer \"why did it die?\"")
	return errors.Join(d.show(ctx, "cases"), d.show(ctx, "show", second))
}

// held waits for a case other than the one before it.
func (d *demo) held(ctx context.Context, died <-chan struct{}, before string) (id string, err error) {
	err = until(ctx, died, func() bool {
		for _, h := range d.holds(ctx) {
			if h.ID != before {
				id = h.ID
				return h.Step == "wait"
			}
		}
		return false
	})
	if err != nil {
		return "", fmt.Errorf("the process was not held: %w", err)
	}
	return id, nil
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// until polls f, until it is true, ctx is done, or what is watched has ended.
func until(ctx context.Context, ended <-chan struct{}, f func() bool) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return errors.New("the process ended")
		case <-t.C:
		}
	}
	return nil
}

// say narrates, with the time since the start.
func say(format string, args ...any) {
	fmt.Printf("[%5.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
}

var started = time.Now()
