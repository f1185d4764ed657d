package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestRequiredPlugin shows the two policies for the time in which Arbiter is
// away: by default containers start without it and are guarded once it is
// back; where the runtime requires the plugin none is created.
func TestRequiredPlugin(t *testing.T) {
	for _, required := range []bool{false, true} {
		t.Run(map[bool]string{false: "open", true: "closed"}[required], func(t *testing.T) {
			n := newNode(t, nodeOptions{requirePlugin: required})
			p := n.runPod(podOptions{name: "early"})
			c, err := p.tryCreate(containerOptions{name: "app", limit: 64 * mib, args: calm})
			switch {
			case required && (err == nil || !strings.Contains(err.Error(), "arbiter")):
				t.Fatalf("created without the plugin: %v", err)
			case !required && err != nil:
				t.Fatal(err)
			case !required:
				must(c.start())
			}
			tolerant := n.runPod(podOptions{name: "tolerant", annotations: map[string]string{"arbiter/tolerate-missing-plugin": "true"}})
			tolerant.run(containerOptions{name: "app", args: calm})
			d := n.startArbiter(t, untilOperator)
			if required {
				c = p.run(containerOptions{name: "app", limit: 64 * mib, args: calm})
			}
			d.awaitGuard(c)
		})
	}
}

// TestDaemonSet reads the shipped manifest as arbiterd would find it mounted.
func TestDaemonSet(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile("../../etc/kubernetes/arbiter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var kinds []string
	for doc := range strings.SplitSeq(string(manifest), "\n---\n") {
		var object struct {
			Kind     string            `json:"kind"`
			Metadata map[string]any    `json:"metadata"`
			Data     map[string]string `json:"data"`
		}
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, object.Kind)
		for name, text := range object.Data {
			text = strings.ReplaceAll(text, "/etc/arbiter/policy.d", dir)
			must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
	}
	if want := []string{"Namespace", "ConfigMap", "ConfigMap", "DaemonSet"}; !slices.Equal(kinds, want) {
		t.Errorf("the manifest has %v, want %v", kinds, want)
	}
	must(os.Rename(filepath.Join(dir, "arbiter.toml"), filepath.Join(dir, "config")))
	out, err := exec.Command(filepath.Join(daemonBinaries(t), "arbiterd"), "check", "--config", filepath.Join(dir, "config")).CombinedOutput()
	if err != nil {
		t.Errorf("arbiterd check: %v\n%s", err, out)
	}
}

// TestPluginReconnects kills the daemon: its supervisor starts another, which
// joins the runtime again and guards what runs and what comes.
func TestPluginReconnects(t *testing.T) {
	n := newNode(t, nodeOptions{})
	d := n.startArbiter(t, untilOperator)
	p := n.runPod(podOptions{name: "reconnect"})
	before := p.run(containerOptions{name: "before", limit: 64 * mib, args: calm})
	d.awaitGuard(before)
	for range 2 {
		must(syscall.Kill(d.workerPid(), syscall.SIGKILL))
		d.awaitSources(true)
		d.awaitGuard(before)
	}
	after := p.run(containerOptions{name: "after", limit: 32 * mib, args: leaking})
	d.awaitHold(after)
	d.standsStill(after)
}

// TestExecStep runs a command inside the leaking container as a step.
func TestExecStep(t *testing.T) {
	n := newNode(t, nodeOptions{})
	d := n.startArbiter(t, `[[rule]]
name = "leak"
[rule.match]
namespace = ["shop"]
[rule.trigger]
on = "limit"
[[rule.step]]
action = "exec"
in = "container"
argv = ["/memleak", "--ceiling", "1MiB", "--exit"]
raise = "50%"
timeout = "30s"
[rule.verdict]
do = "kill"
`)
	p := n.runPod(podOptions{name: "exec", limit: 48 * mib})
	c := p.run(containerOptions{name: "app", limit: 48 * mib, args: []string{"--rate", "40MiB/s", "--block", "64KiB", "--ceiling", "50MiB"}})
	reason, code := c.ended(t)
	r := d.awaitClosed(c)
	for _, s := range r.Steps {
		if s.Result != "ok" {
			t.Errorf("step %s: %s: %s%s", s.Name, s.Result, s.Error, s.Why)
		}
	}
	if r.Outcome != "kill" || reason != "OOMKilled" || code != 137 {
		t.Errorf("outcome %s; the CRI says %q, %d", r.Outcome, reason, code)
	}
}
