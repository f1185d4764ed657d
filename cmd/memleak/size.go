package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A size is a flag of bytes: "4096", "64KiB", "1.5GiB".
type size uint64

var units = []struct {
	suffix string
	bytes  float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

func (s *size) Set(text string) error {
	number, factor := text, 1.0
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = n, u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*factor > math.MaxInt64 || math.IsNaN(f) {
		return fmt.Errorf("want a size such as 64MiB, got %q", text)
	}
	*s = size(f * factor)
	return nil
}

func (s size) String() string {
	if s == 0 {
		return "0"
	}
	for _, u := range []int{2, 1, 0} {
		if n := uint64(units[u].bytes); uint64(s)%n == 0 {
			return strconv.FormatUint(uint64(s)/n, 10) + units[u].suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// A rate is a size a second; the "/s" may be left out.
type rate struct{ size }

func (r *rate) Set(text string) error { return r.size.Set(strings.TrimSuffix(text, "/s")) }

func (r *rate) String() string {
	if r.size == 0 {
		return "0"
	}
	return r.size.String() + "/s"
}
