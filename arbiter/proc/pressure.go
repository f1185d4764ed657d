package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Pressure is pressure stall information: the share of time in which some or
// all non-idle tasks waited, in percent over the last 10, 60 and 300 s.
type Pressure struct {
	Some, Full Stall
}

// A Stall is one line of it.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration // since boot, or since the cgroup was made
}

// NodePressure reads /proc/pressure/KIND ("memory", "cpu", "io") of the node.
// Kernels without PSI, or booted with psi=0, give os.ErrNotExist or EOPNOTSUPP.
func (fs FS) NodePressure(kind string) (Pressure, error) {
	f, err := os.Open(filepath.Join(string(fs), "pressure", kind))
	if err != nil {
		return Pressure{}, err
	}
	defer f.Close()
	return ParsePressure(f)
}

// ParsePressure parses a PSI file, also a cgroup's memory.pressure:
//
//	some avg10=0.00 avg60=0.12 avg300=0.04 total=221312
//	full avg10=0.00 avg60=0.10 avg300=0.03 total=190001
//
// total is in microseconds. The "full" line may be missing (cpu before 5.13).
func ParsePressure(r io.Reader) (Pressure, error) {
	var p Pressure
	seen := false
	sc := bufio.NewScanner(io.LimitReader(r, 4096))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) == 0 {
			continue
		}
		to := map[string]*Stall{"some": &p.Some, "full": &p.Full}[f[0]]
		if to == nil {
			continue
		}
		seen = true
		if err := to.parse(f[1:]); err != nil {
			return Pressure{}, fmt.Errorf("parse pressure %.80q: %w", sc.Text(), err)
		}
	}
	if err := sc.Err(); err != nil {
		return Pressure{}, fmt.Errorf("read pressure: %w", err)
	}
	if !seen {
		return Pressure{}, fmt.Errorf("parse pressure: no line of it")
	}
	return p, nil
}

func (s *Stall) parse(fields []string) error {
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		var err error
		switch key {
		case "avg10":
			s.Avg10, err = strconv.ParseFloat(value, 64)
		case "avg60":
			s.Avg60, err = strconv.ParseFloat(value, 64)
		case "avg300":
			s.Avg300, err = strconv.ParseFloat(value, 64)
		case "total":
			var us int64
			us, err = strconv.ParseInt(value, 10, 50)
			s.Total = time.Duration(us) * time.Microsecond
		}
		if err != nil {
			return err
		}
	}
	return nil
}
