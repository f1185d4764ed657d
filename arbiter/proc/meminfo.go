package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Meminfo is the node's memory, in bytes.
type Meminfo struct {
	Total, Free, Available   uint64
	SwapTotal, SwapFree      uint64
	Cached, Dirty, AnonPages uint64
	Shmem, Slab, SUnreclaim  uint64
	CommitLimit, CommittedAS uint64
}

// Meminfo reads /proc/meminfo.
func (fs FS) Meminfo() (Meminfo, error) {
	f, err := os.Open(filepath.Join(string(fs), "meminfo"))
	if err != nil {
		return Meminfo{}, err
	}
	defer f.Close()
	return parseMeminfo(f)
}

// parseMeminfo parses lines such as "MemAvailable:   20123456 kB". Keys
// without a unit and unknown ones are skipped; MemTotal must be there.
func parseMeminfo(r io.Reader) (Meminfo, error) {
	var m Meminfo
	fields := map[string]*uint64{
		"MemTotal": &m.Total, "MemFree": &m.Free, "MemAvailable": &m.Available,
		"SwapTotal": &m.SwapTotal, "SwapFree": &m.SwapFree,
		"Cached": &m.Cached, "Dirty": &m.Dirty, "AnonPages": &m.AnonPages,
		"Shmem": &m.Shmem, "Slab": &m.Slab, "SUnreclaim": &m.SUnreclaim,
		"CommitLimit": &m.CommitLimit, "Committed_AS": &m.CommittedAS,
	}
	sc := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		if to := fields[key]; to != nil {
			if err := kilobytes(to)(strings.Fields(value)); err != nil {
				return Meminfo{}, fmt.Errorf("parse meminfo, %s: %w", key, err)
			}
		}
	}
	if err := sc.Err(); err != nil {
		return Meminfo{}, fmt.Errorf("read meminfo: %w", err)
	}
	if m.Total == 0 {
		return Meminfo{}, fmt.Errorf("parse meminfo: no MemTotal")
	}
	return m, nil
}
