package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/tests/jvmkit"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// BenchmarkKernelHeapDump compares heap dumps of the same JVM (200 MiB held,
// a cgroup with room): streamed through a FIFO, compressed and walked, against
// jcmd writing a file in the container. Reported are the whole time, the time
// that the program stood still, the disk that the dump takes and the memory
// that the container was charged for it.
func BenchmarkKernelHeapDump(b *testing.B) {
	testkit.Need(b, testkit.V1Memory)
	for name, home := range jvmkit.JDKs(b) {
		for _, way := range []struct {
			name string
			dump func(b *testing.B, p *pulse, home string) (disk int64)
		}{{"arbiter", byArbiter}, {"jcmd", byJcmd}} {
			b.Run(name+"/"+way.name, func(b *testing.B) {
				var took, stood time.Duration
				var disk, charged int64
				for range b.N {
					p := startPulse(b, home)
					before := p.group.Number("memory.usage_in_bytes")
					p.group.Write("memory.max_usage_in_bytes", "0")
					p.longest.Store(0)
					begun := time.Now()
					disk += way.dump(b, p, home)
					took += time.Since(begun)
					time.Sleep(100 * time.Millisecond) // for the program to say how long it stood
					stood += time.Duration(p.longest.Load()) * time.Millisecond
					charged += int64(p.group.Number("memory.max_usage_in_bytes")) - int64(before)
					_ = p.container.Cmd.Process.Kill()
				}
				n := float64(b.N)
				b.ReportMetric(took.Seconds()/n, "s/dump")
				b.ReportMetric(stood.Seconds()/n, "stood-s/dump")
				b.ReportMetric(float64(disk)/n/(1<<20), "disk-MiB/dump")
				b.ReportMetric(float64(charged)/n/(1<<20), "charged-MiB/dump")
			})
		}
	}
}

// A pulse is testdata/Pulse.java in a container.
type pulse struct {
	container *jvmkit.Container
	group     *testkit.Group
	longest   atomic.Int64 // milliseconds that it stood still
}

func startPulse(b *testing.B, home string) *pulse {
	b.Helper()
	p := &pulse{group: testkit.Tree(b, testkit.Options{Limit: 2 << 30})}
	classes := jvmkit.Compile(b, home, "Pulse.java")
	p.container = jvmkit.Start(b, jvmkit.Options{Place: p.group.Place}, filepath.Join(home, "bin/java"),
		"-Xmx512m", "-XX:+UseSerialGC", "-cp", classes, "Pulse", "200")
	out := p.container.AwaitAndKeep(b, "ready")
	go p.listen(out)
	return p
}

// listen keeps the longest standstill since longest was last set to 0; the
// program prints only what is longer than all before.
func (p *pulse) listen(out *bufio.Reader) {
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			return
		}
		if ms, ok := strings.CutPrefix(strings.TrimSpace(line), "stood "); ok {
			if n, err := strconv.ParseInt(ms, 10, 64); err == nil {
				p.longest.Store(n)
			}
		}
	}
}

func byArbiter(b *testing.B, p *pulse, _ string) int64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	j, err := jvm.Open(ctx, "/proc", p.container.Pid)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	out, err := os.Create(filepath.Join(b.TempDir(), "heap.zst"))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	if _, err := jvm.HeapDump(ctx, j, j, jvm.DumpOptions{MaxBytes: 4 << 30}, out); err != nil {
		b.Fatal(err)
	}
	return heapOnDisk(b, out.Name())
}

func byJcmd(b *testing.B, p *pulse, home string) int64 {
	b.Helper()
	out, err := exec.Command(filepath.Join(home, "bin/jcmd"), fmt.Sprint(p.container.Pid), "GC.heap_dump", "-all", "/tmp/heap").CombinedOutput()
	if err != nil {
		b.Fatalf("jcmd: %v: %s", err, out)
	}
	return heapOnDisk(b, filepath.Join(p.container.Tmp, "heap"))
}

func heapOnDisk(b *testing.B, name string) int64 {
	b.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		b.Fatal(err)
	}
	return max(st.Size, st.Blocks*512)
}
