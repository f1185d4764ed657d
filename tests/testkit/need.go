package testkit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Feature is something of the running kernel or host that a test needs.
type Feature string

// What tests need.
const (
	Root        Feature = "root"
	V1Memory    Feature = "cgroup v1 memory controller"
	V1Freezer   Feature = "cgroup v1 freezer"
	V2Memory    Feature = "cgroup v2 memory controller"
	Hybrid      Feature = "cgroup2 beside cgroup v1"
	Memory      Feature = "a memory controller, of either version"
	SwapCounted Feature = "swap accounting"
	SysResource Feature = "CAP_SYS_RESOURCE"
)

// Need skips the test unless the host has all of the features.
func Need(t testing.TB, features ...Feature) {
	t.Helper()
	m := findMounts(t)
	for _, f := range append([]Feature{Root}, features...) {
		if !m.has(f) {
			t.Skip("needs kernel feature: " + string(f))
		}
	}
}

// Has reports whether the host has a feature.
func Has(t testing.TB, f Feature) bool {
	t.Helper()
	return findMounts(t).has(f)
}

// Known reports whether this host has a feature, and whether it is one that a
// test may need.
func Known(f Feature) (present, known bool) {
	m, err := readMounts()
	if err != nil {
		return false, false
	}
	all := []Feature{Root, V1Memory, V1Freezer, V2Memory, Hybrid, Memory, SwapCounted, SysResource}
	return m.has(f), slices.Contains(all, f)
}

// mounts are the hierarchies that tests make their cgroups in.
type mounts struct {
	version int    // 1, 2 or 0
	memory  string // where limits are set
	freezer string // v1 only
	unified string // cgroup2, with or without controllers
}

// findMounts looks at the host. It is written apart from the product's own
// discovery, which it helps to test.
func findMounts(t testing.TB) mounts {
	t.Helper()
	m, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readMounts() (mounts, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return mounts{}, err
	}
	var m mounts
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		options := "," + f[3] + ","
		switch {
		case f[2] == "cgroup2":
			m.unified = f[1]
		case f[2] == "cgroup" && strings.Contains(options, ",memory,"):
			m.version, m.memory = 1, f[1]
		case f[2] == "cgroup" && strings.Contains(options, ",freezer,"):
			m.freezer = f[1]
		}
	}
	if m.version == 0 && m.unified != "" {
		b, err := os.ReadFile(filepath.Join(m.unified, "cgroup.controllers"))
		if err == nil && strings.Contains(string(b), "memory") {
			m.version, m.memory = 2, m.unified
		}
	}
	return m, nil
}

func (m mounts) has(f Feature) bool {
	switch f {
	case Root:
		return os.Geteuid() == 0
	case V1Memory:
		return m.version == 1
	case V2Memory:
		return m.version == 2
	case Memory:
		return m.version != 0
	case V1Freezer:
		return m.freezer != ""
	case Hybrid:
		return m.version == 1 && m.unified != ""
	case SwapCounted:
		_, err := os.Stat(filepath.Join(m.memory, "memory.memsw.limit_in_bytes"))
		return m.version == 2 || err == nil
	case SysResource:
		return effective(unix.CAP_SYS_RESOURCE)
	}
	return false
}

// effective reports whether this process has a capability.
func effective(capability uint) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil {
		return false
	}
	return d[capability/32].Effective&(1<<(capability%32)) != 0
}
