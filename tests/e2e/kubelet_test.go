package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// states brings a container into each state in which a kubelet may call. The
// policies differ in what happens once the limit is reached.
var states = []struct {
	name   string
	policy string // the rule's steps and verdict
	reach  func(d *daemon, c *container)
}{
	{"armed", holdVerdict, func(d *daemon, c *container) { d.awaitGuard(c) }},
	{"held", holdVerdict, func(d *daemon, c *container) { d.awaitHold(c) }},
	{"borrowing", `[[rule.step]]
action = "exec"
argv = ["/memleak", "--ceiling", "64KiB"]
in = "container"
timeout = "5m"
raise = "100%"
[rule.verdict]
do = "kill"
deadline = "9m"
`, func(d *daemon, c *container) { d.awaitStep(c, "exec") }},
	{"dumping", `[[rule.step]]
action = "wait"
for = "5m"
timeout = "6m"
[rule.verdict]
do = "kill"
deadline = "9m"
`, func(d *daemon, c *container) { d.awaitStep(c, "wait") }},
	{"resumed", `[rule.verdict]
do = "resume"
raise = "100%"
resumes = 1
otherwise = "kill"
`, func(d *daemon, c *container) { d.awaitClosed(c) }},
}

const holdVerdict = `[rule.verdict]
do = "hold"
hold-for = "10m"
otherwise = "kill"
`

const limitRule = `[[rule]]
name = "%[1]s"
[rule.match]
container = ["%[1]s"]
[rule.trigger]
on = "limit"
cooldown = "0s"
%[2]s
`

// stops at 6 MiB above its limit, so that a resumed container stays
var overLimit = []string{"--rate", "40MiB/s", "--block", "64KiB", "--ceiling", "38MiB"}

// awaitStep waits until a step of the container's case runs.
func (d *daemon) awaitStep(c *container, step string) {
	d.t.Helper()
	eventually(d.t, long, fmt.Sprintf("%s is in step %s", c, step), func() error {
		if h := d.awaitHold(c); h.Step != step {
			return fmt.Errorf("step %q", h.Step)
		}
		return nil
	})
}

// allStates starts a daemon with a rule for each state, named by it.
func allStates(t *testing.T) (*node, *daemon) {
	t.Helper()
	policy := ""
	for _, s := range states {
		policy += fmt.Sprintf(limitRule, s.name, s.policy)
	}
	n := newNode(t, nodeOptions{})
	return n, n.startArbiter(t, policy)
}

// inState runs a container that reaches a state and stays in it.
func (p *pod) inState(d *daemon, i int, attempt uint32) *container {
	p.n.t.Helper()
	args := overLimit
	if states[i].name == "armed" {
		args = calm
	}
	c := p.run(containerOptions{name: states[i].name, limit: 32 * mib, args: args, attempt: attempt})
	states[i].reach(d, c)
	return c
}

// TestKubeletsHandsAreFree calls what a kubelet calls, in every state. All of
// it must come back in the time that it takes without Arbiter; the bounds here
// are those after which a kubelet would show it.
func TestKubeletsHandsAreFree(t *testing.T) {
	n, d := allStates(t)
	for i, s := range states {
		t.Run(s.name, func(t *testing.T) {
			p := n.runPod(podOptions{name: "hands", limit: 64 * mib})
			c := p.inState(d, i, 0)
			within(t, "ContainerStats", 5*time.Second, func(ctx context.Context) error {
				rsp, err := n.cri.ContainerStats(ctx, &runtime.ContainerStatsRequest{ContainerId: c.id})
				if err == nil && rsp.GetStats().GetMemory() == nil {
					err = errors.New("no figures")
				}
				return err
			})
			within(t, "ContainerStatus", 2*time.Second, func(ctx context.Context) error {
				rsp, err := n.cri.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: c.id})
				if err == nil && rsp.GetStatus().GetState() != runtime.ContainerState_CONTAINER_RUNNING {
					err = fmt.Errorf("state %v", rsp.GetStatus().GetState())
				}
				return err
			})
			within(t, "ExecSync", 12*time.Second, func(ctx context.Context) error {
				// In a frozen container it is refused; what matters is the answer.
				_, _ = n.cri.ExecSync(ctx, &runtime.ExecSyncRequest{ContainerId: c.id, Timeout: 5,
					Cmd: []string{"/memleak", "--ceiling", "64KiB", "--exit"}})
				return ctx.Err()
			})
			within(t, "UpdateContainerResources", 10*time.Second, func(ctx context.Context) error {
				_, err := n.cri.UpdateContainerResources(ctx, &runtime.UpdateContainerResourcesRequest{ContainerId: c.id,
					Linux: &runtime.LinuxContainerResources{MemoryLimitInBytes: 48 * mib}})
				return err
			})
			within(t, "StopContainer", 12*time.Second, func(ctx context.Context) error {
				_, err := n.cri.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: c.id, Timeout: 2})
				return err
			})
			// A kubelet asks again: right after a stop, containerd on a slow
			// machine may still call the container running.
			within(t, "RemoveContainer", 5*time.Second, func(context.Context) error {
				eventually(t, short, "removed", c.remove)
				return nil
			})
			if s.name != "armed" {
				d.checkGone(t, c)
			}
		})
	}
}

// checkGone checks that the case of a container that the kubelet ended is not
// told as a kill. The end of a command in the container ends its step, too: the
// verdict may then still find processes that are about to end.
func (d *daemon) checkGone(t *testing.T, c *container) {
	t.Helper()
	r := d.awaitClosed(c)
	if r.Outcome != "gone" && r.Outcome != "resume" && (c.name != "borrowing" || r.Outcome != "kill") {
		t.Errorf("outcome %s: %s", r.Outcome, r.Why)
	}
}

// TestPodIsDeleted takes the pod away in every state.
func TestPodIsDeleted(t *testing.T) {
	n, d := allStates(t)
	for i, s := range states {
		t.Run(s.name, func(t *testing.T) {
			// With a shared pid namespace runc kills by cgroup and leaves a
			// frozen v1 container as it is, with the kill pending.
			p := n.runPod(podOptions{name: "deleted", limit: 64 * mib, sharePids: i%2 == 1})
			c := p.inState(d, i, 0)
			within(t, "StopPodSandbox", 10*time.Second, func(ctx context.Context) error {
				_, err := n.cri.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.id})
				return err
			})
			within(t, "RemovePodSandbox", 10*time.Second, func(ctx context.Context) error {
				_, err := n.cri.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.id})
				return err
			})
			if s.name != "armed" {
				d.checkGone(t, c)
			}
		})
	}
}

// TestResize gives a container another limit in every state, as an in-place
// resize does: it is the container's limit from then on, whatever was lent.
func TestResize(t *testing.T) {
	n, d := allStates(t)
	for i, s := range states {
		t.Run(s.name, func(t *testing.T) {
			p := n.runPod(podOptions{name: "resized"})
			c := p.inState(d, i, 0)
			const limit = 96 * mib
			if err := c.update(limit); err != nil {
				t.Fatal(err)
			}
			if s.name != "armed" && s.name != "resumed" {
				// More room than it wants: nothing is left to decide.
				var holds []any
				must(d.try(&holds, "pause-list"))
				if len(holds) > 0 {
					h := d.awaitHold(c)
					d.do("resume", h.ID, "--raise", "0%")
				}
				d.awaitClosed(c)
			}
			g := d.awaitGuard(c)
			if g.LimitBytes == nil || *g.LimitBytes != limit || g.BorrowedBytes != 0 {
				t.Errorf("guard %+v", g)
			}
			if got := limitOf(t, c.cgroup()); got != limit {
				t.Errorf("the kernel's limit is %d, want %d", got, limit)
			}
			if st := c.status(t); st.GetState() != runtime.ContainerState_CONTAINER_RUNNING {
				t.Errorf("state %v, %s", st.GetState(), st.GetReason())
			}
		})
	}
}

// within checks that a call comes back in time, and with no error.
func within(t *testing.T, what string, bound time.Duration, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*bound)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	if d := time.Since(start); err != nil || d > slow(bound) {
		t.Errorf("%s took %v (bound %v): %v", what, d, slow(bound), err)
	}
}

// slow widens a bound for emulated machines, where all takes longer.
func slow(d time.Duration) time.Duration {
	if isV2() {
		return 4 * d
	}
	return 2 * d
}
