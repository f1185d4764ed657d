package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/dump"
)

const (
	mib    = 1 << 20
	rounds = 5
)

// TestMain lets the test binary be the dump helper and the dumped process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "dump":
			os.Exit(dump.Main(context.Background(), os.Args[2:], os.Stdin, os.Stdout))
		case "target":
			target(os.Args[2], os.Args[3])
		}
	}
	os.Exit(m.Run())
}

// TestCoreAgainstGcore dumps the same processes with the native writer and
// with gcore, in turns, and prints medians and spreads. The target runs before
// and after: "stopped" is how long it stood still.
func TestCoreAgainstGcore(t *testing.T) {
	for _, program := range []string{"gcore", "java", "javac"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs program: " + program)
		}
	}
	dir := diskDir(t)
	dd := ddRate(t, dir)
	t.Logf("dd oflag=direct, 512 MiB to %s: %s MB/s", dir, dd)
	for _, c := range []struct {
		name  string
		start func(t *testing.T) int
	}{
		{"dense 512 MiB", func(t *testing.T) int { return startTarget(t, "dense", "512") }},
		{"sparse 4 GiB, 256 MiB touched", func(t *testing.T) int { return startTarget(t, "sparse", "4096") }},
		{"1000 threads", func(t *testing.T) int { return startTarget(t, "threads", "1000") }},
		{"JVM", startJVM},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid := c.start(t)
			var ours, stopped, theirs, rate sample
			var oursDisk, theirsDisk int64
			for range rounds {
				d := nativeDump(t, pid, dir)
				ours, stopped, oursDisk = append(ours, d.total), append(stopped, d.stopped), d.disk
				rate = append(rate, float64(d.disk)/d.writing.Seconds()/1e6)
				var g float64
				g, theirsDisk = gcore(t, pid, dir)
				theirs = append(theirs, g)
			}
			t.Logf("native: total %s s, target stopped %s s, %d MiB on disk at %s MB/s", ours, stopped, oursDisk/mib, rate)
			t.Logf("gcore:  total %s s, target stopped all the time, %d MiB on disk", theirs, theirsDisk/mib)
			t.Logf("gcore takes %.1f times as long, and stops the target %.1f times as long", theirs.median()/ours.median(), theirs.median()/stopped.median())
		})
	}
}

// sample are figures of repeated runs.
type sample []float64

func (s sample) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

func (s sample) String() string {
	return fmt.Sprintf("%.3f (%.3f-%.3f)", s.median(), slices.Min(s), slices.Max(s))
}

// diskDir is a directory on a disk, not in memory.
func diskDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("ARBITER_BENCH_DIR"), "arbiter-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ddRate is what the disk takes without the page cache, in MB/s.
func ddRate(t *testing.T, dir string) sample {
	t.Helper()
	var rates sample
	for range rounds {
		name := filepath.Join(dir, "dd")
		started := time.Now()
		out, err := exec.Command("dd", "if=/dev/zero", "of="+name, "bs=1M", "count=512", "oflag=direct").CombinedOutput()
		if err != nil {
			t.Fatalf("dd: %v\n%s", err, out)
		}
		rates = append(rates, 512*mib/time.Since(started).Seconds()/1e6)
		os.Remove(name)
	}
	return rates
}

type dumped struct {
	total, stopped float64 // seconds
	writing        time.Duration
	disk           int64
}

// nativeDump dumps a running process, the helper's start and end included. The
// core is on the disk at the end.
func nativeDump(t *testing.T, pid int, dir string) dumped {
	t.Helper()
	start, err := dump.StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "native.core"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	req := dump.Request{Held: []dump.Process{{Pid: pid, Start: start}}, Targets: []dump.Target{{Pid: pid}}}
	began := time.Now()
	report, err := dump.Helper{}.Dump(ctx, req, []*os.File{f}, dump.Hold{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	core := report.Cores[0]
	if core.Error != "" || len(core.Missing) > 0 {
		t.Fatalf("core %+v", core)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	d := dumped{total: time.Since(began).Seconds(), stopped: report.Stopped.Seconds(), disk: onDisk(t, f.Name())}
	d.writing = time.Since(began)
	return d
}

func gcore(t *testing.T, pid int, dir string) (seconds float64, disk int64) {
	t.Helper()
	prefix := filepath.Join(dir, "gcore")
	began := time.Now()
	out, err := exec.Command("timeout", "300", "gcore", "-o", prefix, strconv.Itoa(pid)).CombinedOutput()
	name := prefix + "." + strconv.Itoa(pid)
	if err != nil {
		t.Fatalf("gcore: %v\n%s", err, out)
	}
	defer os.Remove(name)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began).Seconds(), onDisk(t, name)
}

func onDisk(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func startTarget(t *testing.T, kind, size string) int {
	t.Helper()
	return start(t, exec.Command(os.Args[0], "target", kind, size))
}

const program = `import java.util.*;
public class Bench {
    public static void main(String[] args) throws Exception {
        List<Object> keep = new ArrayList<>();
        Random random = new Random(1);
        for (int i = 0; i < 100; i++) {
            byte[] block = new byte[1 << 20];
            random.nextBytes(block);
            keep.add(block);
        }
        System.out.println("ready");
        synchronized (keep) { keep.wait(); }
    }
}
`

func startJVM(t *testing.T) int {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Bench.java"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("javac", "-d", dir, filepath.Join(dir, "Bench.java")).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return start(t, exec.Command("java", "-Xmx2g", "-cp", dir, "Bench"))
}

// start runs a program until it prints a line.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) == "" {
		t.Fatalf("%s: %q, %v", cmd, line, err)
	}
	return cmd.Process.Pid
}
