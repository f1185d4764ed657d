package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup is the demo's own, on cgroup v1 or v2.
type cgroup struct {
	path string   // relative to the memory hierarchy's mount
	dirs []string // the memory directory first; on v1 the freezer's as well
}

const root = "/sys/fs/cgroup"

// newCgroup makes a cgroup with a limit, or says in one sentence why this
// machine cannot have one.
func newCgroup() (*cgroup, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the demo makes a cgroup, so it must run as root (try `sudo make demo`)")
	}
	c := &cgroup{path: "/arbiter-demo-" + strconv.Itoa(os.Getpid())}
	limitFile := "memory.limit_in_bytes"
	switch {
	case exists(root + "/memory/memory.limit_in_bytes"):
		c.dirs = []string{root + "/memory" + c.path}
		if exists(root + "/freezer/cgroup.procs") {
			c.dirs = append(c.dirs, root+"/freezer"+c.path)
		}
	case exists(root + "/cgroup.controllers"):
		if err := enableMemory(); err != nil {
			return nil, err
		}
		limitFile = "memory.max"
		c.dirs = []string{root + c.path}
	default:
		return nil, errors.New("this machine has no memory controller at " + root + ", of neither cgroup version")
	}
	for _, d := range c.dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			c.remove()
			return nil, fmt.Errorf("the cgroup hierarchy cannot be written: %w", err)
		}
	}
	err := os.WriteFile(filepath.Join(c.dirs[0], limitFile), []byte(strconv.Itoa(limitBytes)), 0o644)
	if err != nil {
		c.remove()
		return nil, fmt.Errorf("the memory limit cannot be set: %w", err)
	}
	return c, nil
}

// enableMemory makes sure that a child of the v2 root has memory files.
func enableMemory() error {
	b, err := os.ReadFile(root + "/cgroup.subtree_control")
	if err != nil {
		return fmt.Errorf("the cgroup hierarchy cannot be read: %w", err)
	}
	if strings.Contains(" "+strings.TrimSpace(string(b))+" ", " memory ") {
		return nil
	}
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
		return fmt.Errorf("the memory controller cannot be turned on at %s: %w", root, err)
	}
	return nil
}

// remove removes the directories. A cgroup whose last process was reaped just
// now is busy for a moment.
func (c *cgroup) remove() {
	for _, d := range c.dirs {
		err := os.Remove(d)
		for i := 0; i < 100 && err != nil && !errors.Is(err, fs.ErrNotExist); i++ {
			time.Sleep(20 * time.Millisecond)
			err = os.Remove(d)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "demo: left behind:", err)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
