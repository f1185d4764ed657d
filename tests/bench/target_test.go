package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// target is the process that is dumped.
func target(kind, size string) {
	n, err := strconv.Atoi(size)
	check(err)
	switch kind {
	case "dense":
		fill(mapped(n), 1)
	case "sparse": // one sixteenth is touched, in runs of 64 KiB
		check(unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0))
		fill(mapped(n), 16)
	case "threads":
		for range n {
			go func() { runtime.LockOSThread(); select {} }()
		}
		for tasks := 0; tasks < n; time.Sleep(time.Millisecond) {
			names, err := os.ReadDir("/proc/self/task")
			check(err)
			tasks = len(names)
		}
	}
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}

func mapped(megabytes int) []byte {
	b, err := unix.Mmap(-1, 0, megabytes*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	check(err)
	return b
}

// fill writes what does not compress and is not zero into every nth run.
func fill(b []byte, nth int) {
	const run = 64 << 10
	random := rand.NewChaCha8([32]byte{})
	for at := 0; at+run <= len(b); at += nth * run {
		_, err := random.Read(b[at : at+run])
		check(err)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "target:", err)
		os.Exit(1)
	}
}
