package dump

import "time"

// A Request is what the helper is told on its standard input, as one line of
// JSON. Core files are not named: they are inherited descriptors.
type Request struct {
	// Held are all processes of the container. They are stopped together.
	Held []Process `json:"held"`
	// Targets are those of Held whose cores are written.
	Targets []Target `json:"targets"`

	Filter   uint64        `json:"filter"`             // core(5); 0: DefaultFilter
	MaxBytes uint64        `json:"maxBytes,omitempty"` // of memory, for all cores together; 0: no bound
	MinFree  uint64        `json:"minFree,omitempty"`  // free bytes that the disk must keep
	Within   time.Duration `json:"within"`             // after this the cores are finished with what they have
	// TrapWithin is how long the threads are given to trap. Dump sets it.
	TrapWithin time.Duration `json:"trapWithin"`
	// SkipSwapped leaves swapped pages out: bringing them back would charge a
	// cgroup that has no room for them.
	SkipSwapped bool `json:"skipSwapped,omitempty"`
}

// A Process is named by its pid and by when it was started (StartTime): pids
// are reused.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// A Target is a process and the descriptor that its core goes to.
type Target struct {
	Pid int `json:"pid"`
	FD  int `json:"fd"`
}

// A Report is what became of a dump.
type Report struct {
	Cores []Core `json:"cores"`
	// Untraced is why no registers could be read by ptrace; "" if they were.
	Untraced string `json:"untraced,omitempty"`
	// Stopped is how long the threads were held by ptrace.
	Stopped time.Duration `json:"stoppedNanos"`
	// Missing tells what the helper itself lacked: a cgroup of its own.
	Missing []string `json:"missing,omitempty"`
	// Thawed is how long the v1 freezer was open for the threads to trap.
	Thawed time.Duration `json:"thawedNanos,omitempty"`
}

// A Core is one process' core.
type Core struct {
	Pid       int           `json:"pid"`
	InnerPid  int           `json:"innerPid"` // in the container
	Comm      string        `json:"comm"`
	Exe       string        `json:"exe"` // inside the container's image
	Threads   int           `json:"threads"`
	Registers string        `json:"registers"` // "ptrace", or "syscall" where some come from there
	Segments  int           `json:"segments"`
	Data      uint64        `json:"dataBytes"` // memory in the file
	FileSize  uint64        `json:"fileBytes"` // holes included
	Missing   []string      `json:"missing,omitempty"`
	Error     string        `json:"error,omitempty"` // the file is of no use
	Gone      bool          `json:"gone,omitempty"`  // because the process ended
	Elapsed   time.Duration `json:"elapsedNanos"`
}

// order is a line from the daemon behind the request.
type order struct {
	// Thawed: the freezer is open, or never was a v1 freezer: wait for traps.
	Thawed bool `json:"thawed,omitempty"`
	// Frozen: everything stands still for good: write.
	Frozen bool `json:"frozen,omitempty"`
	// Untraced is why the threads must not be let into their traps.
	Untraced string `json:"untraced,omitempty"`
}

// message is a line from the helper.
type message struct {
	Seized   bool      `json:"seized,omitempty"`
	Untraced string    `json:"untraced,omitempty"` // with Seized: why not
	Trapped  bool      `json:"trapped,omitempty"`
	Blocked  int       `json:"blocked,omitempty"` // with Trapped: threads that did not
	Progress *progress `json:"progress,omitempty"`
	Report   *Report   `json:"report,omitempty"`
	Error    string    `json:"error,omitempty"`
}

type progress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}
