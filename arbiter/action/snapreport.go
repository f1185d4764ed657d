package action

import (
	"time"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// A report is snapshot.json. Sizes are in bytes.
type report struct {
	Case      string             `json:"case"`
	Container string             `json:"container"`
	Rule      string             `json:"rule"`
	Trigger   policy.TriggerKind `json:"trigger"`
	Why       string             `json:"why"`
	Answer    string             `json:"answer"` // where the memory is, in one line
	Taken     time.Time          `json:"taken"`
	Elapsed   time.Duration      `json:"elapsedNanos"`

	UsageBytes         uint64       `json:"usageBytes"`
	UnreclaimableBytes uint64       `json:"unreclaimableBytes"`
	LimitBytes         policy.Limit `json:"limitBytes"`
	LimitCgroup        string       `json:"limitCgroup,omitempty"`

	Levels       []level     `json:"levels"`    // the container's cgroup, then its ancestors
	Processes    []process   `json:"processes"` // by memory, largest first
	ProcessCount int         `json:"processCount"`
	Mappings     []mappings  `json:"mappings"`
	Tree         []treeEntry `json:"tree"` // the cgroups below the container's
	Node         node        `json:"node"`
	KernelLog    []logLine   `json:"kernelLog"`
	Missing      []string    `json:"missing"` // what could not be read, and why
}

// A level is one cgroup on the way up, as its files say.
type level struct {
	Path     string            `json:"path"`
	Values   map[string]string `json:"values"` // files of one line, by name
	Events   map[string]uint64 `json:"events,omitempty"`
	Stat     map[string]uint64 `json:"stat,omitempty"`
	Pressure *proc.Pressure    `json:"pressure,omitempty"`
}

type process struct {
	Pid         int      `json:"pid"`
	NSPid       int      `json:"nsPid"` // in its own pid namespace
	PPid        int      `json:"ppid"`
	UID         int      `json:"uid"`
	Name        string   `json:"name"`
	Args        []string `json:"args"` // null: not read
	State       string   `json:"state"`
	Wchan       string   `json:"wchan,omitempty"`
	Threads     int      `json:"threads"`
	RSS         uint64   `json:"rssBytes"`
	Anon        uint64   `json:"anonBytes"`
	File        uint64   `json:"fileBytes"`
	Shmem       uint64   `json:"shmemBytes"`
	Swap        uint64   `json:"swapBytes"`
	Peak        uint64   `json:"peakBytes"` // the kernel's high-water mark of RSS
	OOMScore    int      `json:"oomScore"`
	OOMScoreAdj int      `json:"oomScoreAdj"`

	start uint64
}

// mappings are one process' memory by mapping.
type mappings struct {
	Pid     int       `json:"pid"`
	Rollup  mapping   `json:"rollup"` // all of them together
	Largest []mapping `json:"largest"`
}

type mapping struct {
	Start     uint64 `json:"start"`
	End       uint64 `json:"end"`
	Perms     string `json:"perms"`
	Name      string `json:"name"`
	Size      uint64 `json:"sizeBytes"`
	RSS       uint64 `json:"rssBytes"`
	PSS       uint64 `json:"pssBytes"`
	Anonymous uint64 `json:"anonymousBytes"`
	AnonHuge  uint64 `json:"anonHugeBytes"`
	Swap      uint64 `json:"swapBytes"`
	Locked    uint64 `json:"lockedBytes"`
}

type treeEntry struct {
	Path      string `json:"path"` // relative to the container's cgroup
	Usage     string `json:"usageBytes"`
	Limit     string `json:"limitBytes"`
	Processes int    `json:"processes"`
}

type node struct {
	Memory   *proc.Meminfo            `json:"memory,omitempty"`
	Pressure map[string]proc.Pressure `json:"pressure"` // memory, cpu, io
}

type logLine struct {
	SinceBoot time.Duration `json:"sinceBootNanos"`
	Text      string        `json:"text"`
}
