package dump

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Register sets of amd64, as PTRACE_GETREGSET and core notes number them.
const (
	ntPrstatus  = 1
	ntPrfpreg   = 2
	ntX86Xstate = 0x202

	generalSize  = 27 * 8 // struct user_regs_struct
	floatingSize = 512    // struct user_fpregs_struct
	intelXstate  = 2696   // XSAVE area up to the protection keys
)

// Indexes into struct user_regs_struct, in words.
const (
	regR10, regR9, regR8   = 7, 8, 9
	regRDX, regRSI, regRDI = 12, 13, 14
	regOrigRAX             = 15
	regRIP, regRSP         = 16, 19
)

// registers are those of one thread.
type registers struct {
	general  []byte // generalSize
	floating []byte // floatingSize, or nil
	extended []byte // as long as the CPU's XSAVE area, or nil
}

func (r registers) stackPointer() uint64 { return binary.LittleEndian.Uint64(r.general[regRSP*8:]) }

var errNot64 = errors.New("not a 64-bit program: its registers have another layout")

// traced reads the registers of a trapped thread. Only its tracer may.
func traced(tid int) (registers, error) {
	var r registers
	var err error
	if r.general, err = regset(tid, ntPrstatus, make([]byte, generalSize)); err != nil {
		return r, err
	}
	if len(r.general) != generalSize {
		return r, errNot64
	}
	if r.floating, err = regset(tid, ntPrfpreg, make([]byte, floatingSize)); err != nil {
		return r, err
	}
	// A CPU without XSAVE has no such set: ENODEV.
	r.extended, err = regset(tid, ntX86Xstate, make([]byte, 16<<10))
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		err = nil
	}
	// AMD's area may end before Intel's; gdb up to 13 knows Intel's length only
	// and warns of every thread whose note is shorter.
	if n := len(r.extended); n > 0 && n < intelXstate {
		r.extended = append(r.extended, make([]byte, intelXstate-n)...)
	}
	return r, err
}

func regset(tid, set int, buf []byte) ([]byte, error) {
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(tid), uintptr(set), uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("read register set %#x of thread %d: %w", set, tid, errno)
	}
	return buf[:iov.Len], nil
}

// blocked reads what /proc/PID/task/TID/syscall tells of a thread that cannot
// be traced: stack pointer, program counter and, inside a system call, its
// number and arguments. It is enough to unwind code with frame descriptions.
func blocked(d procDir) (registers, error) {
	b, err := d.read("syscall")
	if err != nil {
		return registers{}, err
	}
	general, err := parseSyscall(string(b))
	return registers{general: general}, err
}

// parseSyscall reads "232 0x4 0x7f.. 0x80 0xffffffff 0x0 0x0 0x7ffd.. 0x7f..",
// "-1 0x7ffd.. 0x7f.." (stopped outside a system call) or "running".
func parseSyscall(line string) ([]byte, error) {
	f := strings.Fields(line)
	if len(f) != 9 && len(f) != 3 {
		return nil, fmt.Errorf("parse syscall %.80q: not blocked", line)
	}
	number, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("parse syscall %.80q: %w", line, err)
	}
	words := make([]uint64, len(f)-1)
	for i := range words {
		if words[i], err = strconv.ParseUint(f[i+1], 0, 64); err != nil {
			return nil, fmt.Errorf("parse syscall %.80q: %w", line, err)
		}
	}
	general := make([]byte, generalSize)
	set := func(reg int, value uint64) { binary.LittleEndian.PutUint64(general[reg*8:], value) }
	set(regOrigRAX, uint64(number))
	if len(words) == 8 {
		for i, reg := range []int{regRDI, regRSI, regRDX, regR10, regR8, regR9} {
			set(reg, words[i])
		}
	}
	set(regRSP, words[len(words)-2])
	set(regRIP, words[len(words)-1])
	return general, nil
}

func sortThreads(list []*thread) {
	slices.SortFunc(list, func(a, b *thread) int {
		if main := cmp.Compare(b2i(b.tid == b.pid), b2i(a.tid == a.pid)); main != 0 {
			return main
		}
		return cmp.Compare(a.tid, b.tid)
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
