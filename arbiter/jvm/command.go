package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// maxReply bounds an answer. A thread dump of 10 000 threads is some 30 MiB.
const maxReply = 64 << 20

// A Commander carries commands to a JVM: natively (JVM) or by a JDK's jcmd.
type Commander interface {
	// Command runs a diagnostic command and returns what the JVM says. A
	// refusal by the JVM is an error with its first line.
	Command(ctx context.Context, command string) ([]byte, error)
	Pid() int
}

var _ Commander = (*JVM)(nil)

// Command runs a diagnostic command as `jcmd PID COMMAND` does.
func (j *JVM) Command(ctx context.Context, command string) ([]byte, error) {
	return j.execute(ctx, "jcmd", command)
}

// execute sends one request of attach protocol 1, which every HotSpot since
// JDK 6 speaks:
//
//	"1" NUL operation NUL arg NUL arg NUL arg NUL
//
// and reads the answer: a line with a number, 0 for success, then text until
// the JVM closes the connection.
func (j *JVM) execute(ctx context.Context, operation, arg string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("jvm %d: %s: %w", j.pid, strings.TrimSpace(operation+" "+arg), err)
	}
	c, err := j.connect(ctx)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	// A context that ends interrupts the read.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := exchange(c, operation, arg)
	if ctx.Err() != nil {
		return fail(ctx.Err())
	}
	if err != nil {
		if j.exits() {
			return fail(proc.ErrGone)
		}
		return fail(err)
	}
	return reply, nil
}

func exchange(c net.Conn, operation, arg string) ([]byte, error) {
	if strings.ContainsRune(operation+arg, 0) {
		return nil, errors.New("a NUL in the command")
	}
	if _, err := io.WriteString(c, "1\x00"+operation+"\x00"+arg+"\x00\x00\x00"); err != nil {
		return nil, err
	}
	return parseReply(c, maxReply)
}

// parseReply reads an answer of at most limit bytes.
func parseReply(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: over %d bytes", ErrTooLong, limit)
	}
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	code, err := strconv.Atoi(string(line))
	if !ok || err != nil {
		return nil, errors.New("the answer has no result line")
	}
	if code != 0 {
		return nil, fmt.Errorf("result %d: %s", code, firstLine(rest))
	}
	return rest, nil
}

// firstLine is the beginning of an answer, fit for an error message.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return fmt.Sprintf("%.200q", line)
}

// ThreadDump is what `jstack` prints.
func ThreadDump(ctx context.Context, c Commander, locks bool) ([]byte, error) {
	if locks {
		return c.Command(ctx, "Thread.print -l")
	}
	return c.Command(ctx, "Thread.print")
}

// ClassHistogram counts instances and bytes by class. live collects first.
func ClassHistogram(ctx context.Context, c Commander, live bool) ([]byte, error) {
	if live {
		return c.Command(ctx, "GC.class_histogram")
	}
	return c.Command(ctx, "GC.class_histogram -all")
}

// HeapInfo describes the heap's regions (since JDK 9).
func HeapInfo(ctx context.Context, c Commander) ([]byte, error) {
	return c.Command(ctx, "GC.heap_info")
}

var jdkLine = regexp.MustCompile(`(?m)^JDK (\d+)(?:\.(\d+))?`)

// Version is the JDK's major version: 8, 11, 17, ...
func Version(ctx context.Context, c Commander) (int, error) {
	b, err := c.Command(ctx, "VM.version")
	if err != nil {
		return 0, err
	}
	return parseVersion(b)
}

// parseVersion parses "JDK 17.0.21" and JDK 8's "JDK 8.0_412".
func parseVersion(b []byte) (int, error) {
	m := jdkLine.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("no version in %s", firstLine(b))
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0, fmt.Errorf("parse version: %w", err)
	}
	if major == 1 && len(m[2]) > 0 {
		return strconv.Atoi(string(m[2]))
	}
	return major, nil
}

// IsGone tells whether an error means that the JVM exited meanwhile.
func IsGone(err error) bool { return errors.Is(err, proc.ErrGone) }
