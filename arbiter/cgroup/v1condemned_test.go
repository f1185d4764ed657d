package cgroup

import "testing"

func TestParseCondemned(t *testing.T) {
	t.Parallel()
	const head = "Name:\tx\nState:\tD (disk sleep)\n"
	tests := []struct {
		name, status  string
		killed, first bool
	}{
		{"alive", head + "NSpid:\t42\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n", false, false},
		{"killed, its thread told", head + "NSpid:\t42\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n", true, false},
		{"killed", head + "NSpid:\t42\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n", true, false},
		{"only asked to end", head + "NSpid:\t42\t1\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n", false, true},
		{"first of its namespace", head + "NSpid:\t42\t7\t1\nSigPnd:\t0000000000000100\n", true, true},
		{"second of its namespace", head + "NSpid:\t42\t11\n", false, false},
		{"pid 1 of the host", head + "NSpid:\t1\n", false, false},
		{"garbage", "SigPnd:\tx\nNSpid\nShdPnd:", false, false},
		{"empty", "", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if killed, first := parseCondemned(tt.status); killed != tt.killed || first != tt.first {
				t.Errorf("got %v, %v; want %v, %v", killed, first, tt.killed, tt.first)
			}
		})
	}
}

func FuzzParseCondemned(f *testing.F) {
	f.Add("NSpid:\t42\t1\nSigPnd:\t0000000000000100\n")
	f.Fuzz(func(_ *testing.T, status string) { parseCondemned(status) })
}
