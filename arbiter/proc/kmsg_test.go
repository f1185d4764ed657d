package proc

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLogRecord(t *testing.T) {
	t.Parallel()
	got, err := parseLogRecord("6,339,5140900,-;NET: a;b\n SUBSYSTEM=x\n")
	if want := (LogRecord{5140900 * time.Microsecond, "NET: a;b"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "6,1,2,-", "6,1;x", "6,1,-2,-;x", "6,1,x,-;x"} {
		if got, err := parseLogRecord(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func FuzzLogRecord(f *testing.F) {
	fuzzParser(f, func(r io.Reader) (LogRecord, error) {
		b, err := io.ReadAll(r)
		if err != nil {
			return LogRecord{}, err
		}
		return parseLogRecord(string(b))
	}, "6,339,5140900,-;NET: Registered\n")
}

func TestKernelLogEndsAtTheNewest(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "kmsg") // nothing in it, as at the log's end
	mkfifo(t, fifo)
	w, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n := 0
	if err := KernelLog(t.Context(), fifo, func(LogRecord) { n++ }); err != nil || n != 0 {
		t.Errorf("%d records, %v", n, err)
	}
	if _, err := w.WriteString("6,1,2,-;x\n"); err != nil {
		t.Fatal(err)
	}
	if err := KernelLog(t.Context(), fifo, func(LogRecord) { n++ }); err != nil || n != 1 {
		t.Errorf("%d records, %v; want 1", n, err)
	}
}
