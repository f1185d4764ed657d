package e2e

import (
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const mib = 1 << 20

// TestRig runs a pod without Arbiter: the kernel kills, the CRI says so. What
// the other tests show has to be seen against this.
func TestRig(t *testing.T) {
	n := newNode(t, nodeOptions{})
	p := n.runPod(podOptions{name: "plain"})
	c := p.run(containerOptions{name: "app", limit: 32 * mib, args: []string{"--rate", "200MiB/s"}})
	reason, code := c.ended(t)
	if reason != "OOMKilled" || code != 137 {
		t.Errorf("ended with %q, %d", reason, code)
	}
	d := p.run(containerOptions{name: "calm", args: []string{"--ceiling", "1MiB"}})
	rsp, err := d.exec("/memleak", "--ceiling", "1MiB", "--exit")
	if err != nil || rsp.GetExitCode() != 0 {
		t.Errorf("exec: %v, %v", rsp, err)
	}
	if st := d.status(t); st.GetState() != runtime.ContainerState_CONTAINER_RUNNING {
		t.Errorf("calm container is %v", st.GetState())
	}
}
