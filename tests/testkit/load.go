package testkit

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runChild waits to be placed, and does what the load says, for ever.
func runChild(spec string) {
	var l Load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		panic(err)
	}
	p := mapProgress(3)
	var b [3]byte
	if n, _ := os.Stdin.Read(b[:]); n == 0 {
		return // the test is gone
	}
	// At the limit no thread can be made, and the runtime dies of that.
	makeThreads(l.Threads + spareThreads)
	switch l.Kind {
	case Anon:
		l.Threads = max(l.Threads, 1)
		var ready atomic.Int64
		for i := range l.Threads - 1 {
			go l.touch(p, uint64(i+1), &ready)
		}
		l.touch(p, 0, &ready)
	case Populate:
		l.populate(p)
	case Pipe:
		l.pipes(p)
	case Cache:
		l.cache(p)
	case Steady:
		l.steady(p)
	case Forks:
		forks(p)
	}
	stand()
}

// spareThreads are for the runtime, which hands the work of a thread that is
// long in a system call to another one.
const spareThreads = 8

// makeThreads makes the runtime own n more idle threads.
func makeThreads(n int) {
	var made atomic.Int64
	var ended sync.WaitGroup
	for range n {
		ended.Go(func() { gather(&made, n); runtime.UnlockOSThread() })
	}
	ended.Wait()
}

func stand() {
	for {
		_ = unix.Pause()
	}
}

const page = 4096

// gather waits, on a thread of its own, until all threads do.
func gather(ready *atomic.Int64, all int) {
	runtime.LockOSThread()
	ready.Add(1)
	for ready.Load() < int64(all) {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
	}
}

// touch takes new pages one by one, each with its own number in it.
func (l Load) touch(p *progress, thread uint64, ready *atomic.Int64) {
	chunks := [][]byte{l.chunk(p)}
	gather(ready, l.Threads)
	own := uint64(0)
	for most := l.Ceiling / uint64(l.Threads) / page; l.Ceiling == 0 || own < most; {
		if own > 0 && own*page%chunk == 0 {
			chunks = append(chunks, l.chunk(p))
		}
		at := own * page % chunk
		*(*uint64)(unsafe.Pointer(&chunks[len(chunks)-1][at])) = own<<8 | thread&0xff | 1<<62
		own++
		p.pages.Add(1)
		if l.Pause > 0 {
			time.Sleep(l.Pause)
		}
		if thread == 0 {
			l.look(p, chunks, own)
		}
	}
	p.done.Store(1)
	for thread == 0 {
		l.look(p, chunks, own)
		time.Sleep(time.Millisecond)
	}
	stand()
}

// chunk is how much address space a thread takes at once.
const chunk = 64 << 20

func (l Load) chunk(p *progress) []byte {
	b, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		p.errors.Add(1)
		stand()
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b
}

// look compares all pages with what was written, if the test asks.
func (l Load) look(p *progress, chunks [][]byte, own uint64) {
	asked := p.verify.Load()
	if asked == p.looked.Load() {
		return
	}
	for i := range own {
		b := chunks[i*page/chunk]
		if *(*uint64)(unsafe.Pointer(&b[i*page%chunk])) != i<<8|1<<62 {
			p.bad.Add(1)
		}
	}
	p.looked.Store(asked)
}

func (l Load) populate(p *progress) {
	for taken := uint64(0); l.Ceiling == 0 || taken < l.Ceiling; taken += l.Block {
		// MAP_POPULATE hides its errors; MADV_POPULATE_WRITE reports them.
		b, err := unix.Mmap(-1, 0, int(l.Block), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err == nil {
			err = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
		}
		if err != nil {
			p.errors.Add(1)
			stand()
		}
		p.pages.Add(1)
		time.Sleep(l.Pause)
	}
	p.done.Store(1)
}

func (l Load) pipes(p *progress) {
	block := make([]byte, 64<<10)
	for {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_NONBLOCK); err != nil {
			p.errors.Add(1)
			stand()
		}
		n, err := unix.Write(fds[1], block)
		if err != nil || n < len(block) {
			p.errors.Add(1)
			stand()
		}
		p.pages.Add(1)
		time.Sleep(l.Pause)
	}
}

func (l Load) cache(p *progress) {
	block := make([]byte, 1<<20)
	f, err := os.Create(l.File)
	if err != nil {
		panic(err)
	}
	for {
		for at := uint64(0); at < l.Ceiling; at += uint64(len(block)) {
			if _, err := f.WriteAt(block, int64(at)); err != nil {
				p.errors.Add(1)
			}
			p.pages.Add(1)
		}
		_ = f.Sync()
		p.done.Store(1)
	}
}

// steady lives near its limit: it keeps most of Ceiling, and frees and takes
// the last Block again and again.
func (l Load) steady(p *progress) {
	hold := func(n uint64) []byte {
		b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			panic(err)
		}
		for i := 0; i < len(b); i += page {
			b[i] = 1
		}
		return b
	}
	base := hold(l.Ceiling - l.Block)
	for {
		b := hold(l.Block)
		p.pages.Add(1)
		p.done.Store(1)
		time.Sleep(l.Pause)
		_ = unix.Munmap(b)
		runtime.KeepAlive(base)
	}
}

// forks starts children that start children, each of which sleeps.
func forks(p *progress) {
	for {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = os.Environ()
		cmd.Stdin = strings.NewReader("go\n")
		shared := os.NewFile(3, "progress")
		cmd.ExtraFiles = []*os.File{shared}
		if cmd.Start() == nil {
			p.pages.Add(1)
		} else {
			p.errors.Add(1)
			time.Sleep(time.Millisecond)
		}
		runtime.KeepAlive(shared)
	}
}
