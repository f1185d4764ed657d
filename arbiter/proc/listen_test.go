package proc

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseTCP(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:240D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 38372 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0050 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 99999 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1
`
	got, err := parseTCP(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []listener{
		{netip.MustParseAddrPort("127.0.0.1:9229"), 38372},
		{netip.MustParseAddrPort("[::1]:8080"), 7},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(listener{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseTCP(f *testing.F) {
	f.Add("0: 0100007F:240D 00000000:0000 0A 0:0 0:0 0 1000 0 38372\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseTCP(strings.NewReader(s)); err != nil && got != nil && len(got) > 0 {
			t.Errorf("both %v and %v", got, err)
		}
	})
}

func TestKernelListeners(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, err := FS("/proc").Listeners(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Addr().(*net.TCPAddr).Port))
	if !slices.Contains(got, want) {
		t.Errorf("%v is not among %v", want, got)
	}
}

// A server in a network namespace of its own is reached there, and our thread
// comes back.
func TestKernelDialTCP(t *testing.T) {
	if os.Getenv("PROC_TEST_NETNS") != "" {
		serveInNetNS()
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernelDialTCP$")
	cmd.Env = []string{"PROC_TEST_NETNS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	before, err := FS("/proc").Namespace(os.Getpid(), "net")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := FS("/proc").Listeners(cmd.Process.Pid)
	if err != nil || len(addrs) != 1 {
		t.Fatalf("listeners %v, %v", addrs, err)
	}
	c, err := FS("/proc").DialTCP(t.Context(), cmd.Process.Pid, addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "inside" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if after, err := FS("/proc").Namespace(os.Getpid(), "net"); after != before || err != nil {
		t.Errorf("namespace %d became %d, %v", before, after, err)
	}
}

// serveInNetNS is the child of TestKernelDialTCP. It brings lo up first.
func serveInNetNS() {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		panic(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, "inside")
		c.Close()
	}
}
