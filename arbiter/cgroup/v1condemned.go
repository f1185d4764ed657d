package cgroup

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// On version 1 a SIGKILL waits for the thaw of whom it is sent to, and nobody
// is told of it. Who kills a held process has to see it end: an operator with
// kill -9, and the container runtime. runc thaws what it kills, but not where
// the container shares its pod's pid namespace on a host that also has the
// unified hierarchy: there it writes cgroup.kill and leaves the freezer alone,
// so that StopContainer waited as long as the hold.

// condemnedEvery is how often a held cgroup is looked at. Nobody waits less
// than a second for a kill.
const condemnedEvery = 250 * time.Millisecond

// condemnedMost bounds the look. The runtime's kill reaches all processes, and
// the oldest are listed first.
const condemnedMost = 8

// thawCondemned ends a hold once its processes were killed by somebody else.
func (c *v1) thawCondemned() {
	time.AfterFunc(condemnedEvery, func() {
		if !c.stopping.Load() {
			return
		}
		if c.condemned() {
			ctx, cancel := context.WithTimeout(context.Background(), condemnedEvery)
			defer cancel()
			if err := c.Thaw(ctx); err == nil {
				c.fs.watch.post(func() {
					c.emit(Event{Kind: EventFreezerChanged, At: time.Now(), Why: "somebody else killed it while it was held: thawed, so that it can die"})
				})
				return
			}
		}
		c.thawCondemned()
	})
}

// condemned tells whether a SIGKILL waits for every process, or for the first
// one of a pid namespace, which takes all of that namespace with it.
func (c *v1) condemned() bool {
	pids, err := c.Pids()
	if err != nil || len(pids) == 0 {
		return false
	}
	for _, pid := range pids[:min(len(pids), condemnedMost)] {
		b, err := os.ReadFile(c.fs.proc + "/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue // it is gone
		}
		killed, first := parseCondemned(string(b))
		if killed && first {
			return true
		}
		if !killed {
			return false
		}
	}
	return true
}

// parseCondemned reads /proc/PID/status: whether SIGKILL is pending for the
// main thread or the process, and whether the process is the first one of a
// pid namespace below ours.
//
//	NSpid:	4248	1
//	SigPnd:	0000000000000100
//	ShdPnd:	0000000000000000
func parseCondemned(status string) (killed, first bool) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "NSpid":
			f := strings.Fields(value)
			first = len(f) > 1 && f[len(f)-1] == "1"
		case "SigPnd", "ShdPnd":
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			killed = killed || err == nil && mask&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return killed, first
}
