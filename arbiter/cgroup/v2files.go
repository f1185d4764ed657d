package cgroup

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/arbiterd/arbiter/policy"
)

// memoryEvents is memory.events of cgroup v2: counts since the cgroup was
// made, over the cgroup and all below it.
//
//	low 0
//	high 4488
//	max 12
//	oom 1
//	oom_kill 0
//	oom_group_kill 0
type memoryEvents struct {
	high    uint64 // times that a task was throttled by memory.high
	max     uint64 // times that the limit was reached, whether or not reclaim helped
	oom     uint64 // times that the limit was reached and nothing could be reclaimed
	oomKill uint64 // processes that the kernel killed for it
}

func parseMemoryEvents(b []byte) (memoryEvents, error) {
	var e memoryEvents
	err := parseKeys(b, func(key string, n uint64) {
		switch key {
		case "high":
			e.high = n
		case "max":
			e.max = n
		case "oom":
			e.oom = n
		case "oom_kill":
			e.oomKill = n
		}
	})
	if err != nil {
		return memoryEvents{}, fmt.Errorf("parse memory.events: %w", err)
	}
	return e, nil
}

// reclaimable sums what the kernel can take back without a kill, in bytes,
// from memory.stat: clean and dirty page cache, and caches of the kernel.
// Shared memory is on the anonymous lists, and locked pages are on neither.
//
//	active_file 4096
//	inactive_file 8192
//	slab_reclaimable 512
func parseReclaimable(b []byte) (uint64, error) {
	var sum uint64
	err := parseKeys(b, func(key string, n uint64) {
		switch key {
		case "active_file", "inactive_file", "slab_reclaimable":
			sum += n
		}
	})
	if err != nil {
		return 0, fmt.Errorf("parse memory.stat: %w", err)
	}
	return sum, nil
}

// cgroupEvents is cgroup.events of cgroup v2.
type cgroupEvents struct{ populated, frozen bool }

func parseCgroupEvents(b []byte) (cgroupEvents, error) {
	var e cgroupEvents
	err := parseKeys(b, func(key string, n uint64) {
		switch key {
		case "populated":
			e.populated = n != 0
		case "frozen":
			e.frozen = n != 0
		}
	})
	if err != nil {
		return cgroupEvents{}, fmt.Errorf("parse cgroup.events: %w", err)
	}
	return e, nil
}

// parseMax reads a limit of cgroup v2: a number of bytes, or "max".
func parseMax(word string) (policy.Limit, error) {
	if word == "max" {
		return policy.NoLimit, nil
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return policy.NoLimit, fmt.Errorf("parse limit %q: %w", word, err)
	}
	return policy.LimitOf(n), nil
}

// A pressure is one line of memory.pressure (Documentation/accounting/psi.rst):
// the time in which some, or all, tasks waited for memory, in microseconds.
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
type pressure struct{ someMicros, fullMicros uint64 }

func parsePressure(b []byte) (pressure, error) {
	var p pressure
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			return pressure{}, fmt.Errorf("parse memory.pressure: line %q", line)
		}
		total, ok := bytes.CutPrefix(fields[len(fields)-1], []byte("total="))
		n, err := strconv.ParseUint(string(total), 10, 64)
		if !ok || err != nil {
			return pressure{}, fmt.Errorf("parse memory.pressure: line %q", line)
		}
		switch string(fields[0]) {
		case "some":
			p.someMicros = n
		case "full":
			p.fullMicros = n
		}
	}
	return p, nil
}

// bytesOf is a number of bytes as it is written to a limit.
func bytesOf(n uint64) string { return strconv.FormatUint(n, 10) }
