package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A unit is a suffix of a number and what it multiplies by.
type unit struct {
	suffix string
	factor uint64
}

// sizeUnits are the units of sizes, the longest first: binary only, since that
// is how the kernel counts and how people set limits.
var sizeUnits = []unit{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1},
}

// ParseSize reads an amount of memory: "64MiB" or "25%" (of the limit). A
// number without a unit is refused.
func ParseSize(s string) (Size, error) {
	if strings.HasSuffix(s, "%") {
		p, err := ParsePercent(s)
		return Size{Percent: p}, err
	}
	for _, u := range sizeUnits {
		if num, ok := strings.CutSuffix(s, u.suffix); ok {
			if n, err := number(num); err == nil && n*float64(u.factor) < math.MaxInt64 {
				return Size{Bytes: uint64(n * float64(u.factor))}, nil
			} else if err == nil {
				return Size{}, fmt.Errorf("%q is more memory than there can be", s)
			}
			break
		}
	}
	return Size{}, unitError(s, "a size", `"64MiB", "1.5GiB" or "25%"`)
}

// ParsePercent reads a share: "40%" is 40.
func ParsePercent(s string) (float64, error) {
	num, ok := strings.CutSuffix(s, "%")
	n, err := number(num)
	switch {
	case !ok || err != nil:
		return 0, unitError(s, "a share", `"40%"`)
	case n > 10000:
		return 0, fmt.Errorf("%q is too large a share", s)
	}
	return n, nil
}

// ParseDuration reads a duration as Go writes it, with days besides: "20s",
// "1h30m", "14d". A number without a unit and a negative duration are refused.
func ParseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if num, after, ok := strings.Cut(s, "d"); ok {
		n, err := number(num)
		if err != nil || n > 36500 {
			return 0, unitError(s, "a duration", `"20s", "5m" or "14d"`)
		}
		days, rest = time.Duration(n*24*float64(time.Hour)), after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	// time.ParseDuration takes "0" and a sign; policies do not.
	if err != nil || strings.ContainsAny(rest, "+-") || isNumber(rest) || days > math.MaxInt64-d {
		return 0, unitError(s, "a duration", `"20s", "5m" or "14d"`)
	}
	return days + d, nil
}

// number reads a plain decimal: no sign, exponent, underscore, Inf or NaN.
func number(s string) (float64, error) {
	if !isNumber(s) {
		return 0, errors.New("not a number")
	}
	return strconv.ParseFloat(s, 64)
}

func isNumber(s string) bool {
	whole, fraction, point := strings.Cut(s, ".")
	return digits(whole) && (!point || digits(fraction))
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// unitError says what is wrong with s: most often its unit is missing.
func unitError(s, what, example string) error {
	switch {
	case isNumber(s):
		return fmt.Errorf("%q lacks a unit: write %s like %s", s, what, example)
	case s == "":
		return fmt.Errorf("is empty: write %s like %s", what, example)
	}
	return fmt.Errorf("%q is not %s: write it like %s", s, what, example)
}

// String writes a size as policies do: "25%" or "64MiB".
func (s Size) String() string {
	if s.Percent > 0 {
		return strconv.FormatFloat(s.Percent, 'f', -1, 64) + "%"
	}
	return FormatBytes(s.Bytes)
}

// FormatBytes writes a number of bytes in the largest unit that it reaches,
// with at most one digit after the point: "64MiB", "1.5GiB", "4KiB".
func FormatBytes(n uint64) string {
	for _, u := range sizeUnits {
		if n >= u.factor && u.factor > 1 {
			tenths := math.Round(float64(n) / float64(u.factor) * 10)
			return strconv.FormatFloat(tenths/10, 'f', -1, 64) + u.suffix
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// FormatDuration writes a duration without empty units: "2m", "1h30m", "0s".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
