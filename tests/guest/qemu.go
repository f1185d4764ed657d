package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// boot runs the guest and returns the job's exit status.
func boot(ctx context.Context, o options, initramfs, cache, tmp string, out io.Writer) (int, error) {
	data, err := dataDisk(ctx, cache)
	if err != nil {
		return exitHost, err
	}
	swap := filepath.Join(tmp, "swap.img")
	if err := os.WriteFile(swap, nil, 0o600); err != nil {
		return exitHost, err
	}
	if err := os.Truncate(swap, 1<<30); err != nil {
		return exitHost, err
	}
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	qemu := exec.CommandContext(limited, "qemu-system-x86_64", qemuArgs(o, initramfs, data, swap)...)
	qemu.Env = append(os.Environ(), "TMPDIR="+tmp) // where snapshots of the disks go
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	qemu.Stderr = os.Stderr
	console, err := qemu.StdoutPipe()
	if err != nil {
		return exitHost, err
	}
	if err := qemu.Start(); err != nil {
		return exitHost, fmt.Errorf("start qemu: %w", err)
	}
	t := follow(console, out)
	err = qemu.Wait()
	t.summary(out)
	switch {
	case t.ended && t.status == 0 && o.strict && t.unexplained() != "":
		return exitHost, fmt.Errorf("unexpected skip: %s", t.unexplained())
	case t.ended:
		return t.status, nil
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		return exitDeadline, fmt.Errorf("not done after %v", o.timeout)
	case ctx.Err() != nil:
		return exitHost, ctx.Err()
	case err != nil:
		return exitHost, fmt.Errorf("qemu: %w", err)
	}
	return exitPanic, errors.New("the guest ended without an exit status: see the console's last lines")
}

func qemuArgs(o options, initramfs, data, swap string) []string {
	// Only emergencies reach the console: a guarded container's out-of-memory
	// reports would otherwise be printed at the speed of a serial line.
	// On a busy host the emulated timer may miss the kernel's check of it.
	cmdline := "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check guest_kernel=" + o.kernel
	if o.v1 {
		cmdline += " guest_v1"
	} else {
		cmdline += " cgroup_no_v1=all"
	}
	return []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
		"-smp", strconv.Itoa(o.cpus), "-m", strconv.Itoa(o.memMiB),
		"-nographic", "-no-reboot", "-nic", "none", "-vga", "none",
		"-kernel", o.vmlinuz, "-initrd", initramfs, "-append", cmdline,
		"-drive", "if=none,id=data,format=raw,snapshot=on,file=" + data,
		"-device", "nvme,drive=data,serial=data",
		"-drive", "if=none,id=swap,format=raw,cache=unsafe,file=" + swap,
		"-device", "nvme,drive=swap,serial=swap",
	}
}

// dataDisk makes, once, the empty ext4 that every boot gets a copy-on-write
// view of.
func dataDisk(ctx context.Context, cache string) (string, error) {
	name := filepath.Join(cache, "data.ext4")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	tmp, err := os.CreateTemp(cache, "data-")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(tmp.Truncate(4<<30), tmp.Close()); err != nil {
		return "", err
	}
	mkfs := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", tmp.Name())
	if b, err := mkfs.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mkfs.ext4: %w: %s", err, b)
	}
	return name, os.Rename(tmp.Name(), name)
}

// A transcript is what was learned from the console.
type transcript struct {
	ended          bool
	status         int
	passed, failed int
	skips          []string
}

var (
	exitLine = regexp.MustCompile(`^guest-exit: (\d+)$`)
	testLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	skipText = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)
)

// firmware is what speaks before the kernel does.
var firmware = regexp.MustCompile(`\x1b|^(SeaBIOS|iPXE|Booting from)|^$`)

// follow copies the console to out until it ends, less the firmware's lines.
func follow(console io.Reader, out io.Writer) transcript {
	var t transcript
	last, begun := "", false
	lines := bufio.NewScanner(console)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if t.ended {
			continue // the kernel says goodbye
		}
		if begun = begun || !firmware.MatchString(line); !begun {
			continue
		}
		if m := exitLine.FindStringSubmatch(line); m != nil {
			t.ended = true
			t.status, _ = strconv.Atoi(m[1])
			continue
		}
		t.count(line, last)
		last = line
		fmt.Fprintln(out, line)
	}
	return t
}

// count takes note of a test's verdict. The reason for a skip stands on the
// line before its verdict with -test.v.
func (t *transcript) count(line, last string) {
	m := testLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	switch m[1] {
	case "PASS":
		t.passed++
	case "FAIL":
		t.failed++
	case "SKIP":
		why := "no reason given"
		if s := skipText.FindStringSubmatch(last); s != nil {
			why = s[1]
		}
		t.skips = append(t.skips, m[2]+": "+why)
	}
}

// unexplained is the first skip that no lack of the kernel explains.
func (t *transcript) unexplained() string {
	for _, s := range t.skips {
		if !strings.Contains(s, ": needs kernel feature: ") {
			return s
		}
	}
	return ""
}

func (t *transcript) summary(out io.Writer) {
	if t.passed+t.failed+len(t.skips) == 0 {
		return
	}
	for _, s := range t.skips {
		fmt.Fprintln(out, "guest: skipped", s)
	}
	fmt.Fprintf(out, "guest: %d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skips))
}
