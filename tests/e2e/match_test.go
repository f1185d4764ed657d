package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/api"
)

// TestMatchKeys has one rule for each key that only a runtime can tell, and a
// container for each rule; the last container is excluded from all.
func TestMatchKeys(t *testing.T) {
	rules := []struct{ name, match string }{
		{"namespace", `namespace = ["by-name*"]`},
		{"pod", `pod = ["by-pod-*"]`},
		{"container", `container = ["by-container"]`},
		{"image", `image = ["*/other:*"]`},
		{"labels", `labels = { team = "pay*" }`},
		{"annotations", `annotations = { "arbiter/policy" = "heap" }`},
		{"qos-and-limit", `qos = ["burstable"]
limit-at-least = "60MiB"
limit-at-most = "70MiB"`},
	}
	policy := ""
	for _, r := range rules {
		policy += fmt.Sprintf("[[rule]]\nname = %q\n[rule.match]\n%s\nnot = { container = [\"exempt*\"] }\n[rule.trigger]\non = \"limit\"\n[rule.verdict]\ndo = \"kill\"\n", r.name, r.match)
	}
	n := newNode(t, nodeOptions{})
	d := n.startArbiter(t, policy)
	base := containerOptions{name: "plain", limit: 32 * mib, args: calm}
	with := func(f func(p *podOptions, c *containerOptions)) *container {
		p, c := podOptions{name: "plain", namespace: "plain"}, base
		f(&p, &c)
		return n.runPod(p).run(c)
	}
	want := map[string]*container{
		"namespace":   with(func(p *podOptions, _ *containerOptions) { p.namespace = "by-namespace" }),
		"pod":         with(func(p *podOptions, _ *containerOptions) { p.name = "by-pod-1" }),
		"container":   with(func(_ *podOptions, c *containerOptions) { c.name = "by-container" }),
		"image":       with(func(_ *podOptions, c *containerOptions) { c.image = otherImage }),
		"labels":      with(func(p *podOptions, _ *containerOptions) { p.labels = map[string]string{"team": "payments"} }),
		"annotations": with(func(p *podOptions, _ *containerOptions) { p.annotations = map[string]string{"arbiter/policy": "heap"} }),
		"qos-and-limit": with(func(_ *podOptions, c *containerOptions) {
			c.limit = 64 * mib
		}),
	}
	for rule, c := range want {
		if g := d.awaitGuard(c); g.Rule != rule {
			t.Errorf("container of rule %s is guarded by %s", rule, g.Rule)
		}
		if out := d.do("explain", c.cgroup()); !strings.Contains(out, rule) {
			t.Errorf("explain %s:\n%s", c, out)
		}
	}
	exempt := with(func(p *podOptions, c *containerOptions) { p.namespace, c.name = "by-namespace", "exempt-1" })
	plain := with(func(*podOptions, *containerOptions) {})
	out := d.do("explain", exempt.String())
	if !strings.Contains(out, "not") {
		t.Errorf("explain %s:\n%s", exempt, out)
	}
	var guards []api.Guard
	must(d.try(&guards, "guards"))
	for _, g := range guards {
		if g.ContainerID == exempt.id || g.ContainerID == plain.id {
			t.Errorf("guarded: %+v", g)
		}
	}
}

// TestTargets names a container in the ways that the commands accept.
func TestTargets(t *testing.T) {
	n := newNode(t, nodeOptions{})
	d := n.startArbiter(t, untilOperator)
	p := n.runPod(podOptions{name: "checkout"})
	c := p.run(containerOptions{name: "app", limit: 64 * mib, args: calm})
	d.awaitGuard(c)
	for _, target := range []string{c.String(), c.id[:12], c.id, c.cgroup()} {
		d.do("explain", target)
		d.do("pause", target)
		h := d.awaitHold(c)
		d.standsStill(c)
		if h.Trigger != "manual" {
			t.Errorf("%s: trigger %s", target, h.Trigger)
		}
		d.do("resume", h.ID, "--raise", "0%")
		d.awaitClosed(c)
	}
	d.do("disarm", c.String())
	eventually(t, short, "the guard is gone", func() error {
		var guards []api.Guard
		if err := d.try(&guards, "guards"); err != nil {
			return err
		}
		for _, g := range guards {
			if g.State != "unarmed" {
				return fmt.Errorf("guard %+v", g)
			}
		}
		return nil
	})
	d.do("reload")
	d.awaitGuard(c)
}
