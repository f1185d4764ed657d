package report

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/arbiterd/arbiter/policy"
)

// snapshotFile is the artifact of the snapshot action with its figures.
const snapshotFile = "snapshot.json"

// maxProcesses bounds the process table; the artifact has them all.
const maxProcesses = 50

// snapshot is what the report takes from the snapshot action.
type snapshot struct {
	Answer       string       `json:"answer"`
	LimitBytes   policy.Limit `json:"limitBytes"`
	Levels       []level      `json:"levels"` // the container's cgroup, then its ancestors
	Processes    []process    `json:"processes"`
	ProcessCount int          `json:"processCount"`
	Missing      []string     `json:"missing"`
}

type level struct {
	Path   string            `json:"path"`
	Values map[string]string `json:"values"`
	Stat   map[string]uint64 `json:"stat"`
}

type process struct {
	Pid     int      `json:"pid"`
	UID     int      `json:"uid"`
	Name    string   `json:"name"`
	Args    []string `json:"args"`
	State   string   `json:"state"`
	Threads int      `json:"threads"`
	RSS     uint64   `json:"rssBytes"`
	Peak    uint64   `json:"peakBytes"`
	Anon    uint64   `json:"anonBytes"`
	Shmem   uint64   `json:"shmemBytes"`
	Swap    uint64   `json:"swapBytes"`
	Score   int      `json:"oomScore"`
	Adj     int      `json:"oomScoreAdj"`
}

// Command is the command line, or the name where it could not be read.
func (p process) Command() string {
	if len(p.Args) == 0 {
		return "[" + p.Name + "]"
	}
	return strings.Join(p.Args, " ")
}

// parseSnapshot is nil for what the snapshot action did not write.
func parseSnapshot(data []byte) *snapshot {
	var s snapshot
	if json.Unmarshal(data, &s) != nil {
		return nil
	}
	s.Processes = s.Processes[:min(len(s.Processes), maxProcesses)]
	return &s
}

// share is one kind of memory.
type share struct {
	What    string
	Bytes   uint64
	Percent float64 // of the limit, 100 at most
}

// Shares tells where the memory is, by the kinds of memory.stat: v1 calls
// anonymous memory rss and page cache cache, v2 anon and file.
func (s *snapshot) Shares() []share {
	if len(s.Levels) == 0 || len(s.Levels[0].Stat) == 0 {
		return nil
	}
	own := s.Levels[0]
	shm := own.Stat["shmem"]
	kernel := own.Stat["kernel"]
	if n, err := strconv.ParseUint(own.Values["memory.kmem.usage_in_bytes"], 10, 64); err == nil {
		kernel = n
	}
	swap := own.Stat["swap"]
	if n, err := strconv.ParseUint(own.Values["memory.swap.current"], 10, 64); err == nil {
		swap = n
	}
	cache := own.Stat["cache"] + own.Stat["file"]
	kinds := []share{
		{What: "anonymous: heaps, stacks", Bytes: own.Stat["rss"] + own.Stat["anon"]},
		{What: "shared memory, tmpfs", Bytes: shm},
		{What: "page cache, can be dropped unless it is in use", Bytes: cache - min(shm, cache)},
		{What: "kernel, on its behalf", Bytes: kernel},
		{What: "swapped out", Bytes: swap},
	}
	limit, ok := s.LimitBytes.Bytes()
	for i := range kinds {
		if ok && limit > 0 {
			kinds[i].Percent = min(float64(kinds[i].Bytes)/float64(limit)*100, 100)
		}
	}
	return kinds
}
