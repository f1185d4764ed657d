package policy

import "time"

// SnapshotOptions are the keys of `snapshot`.
type SnapshotOptions struct{}

// ExecOptions are the keys of `exec`.
type ExecOptions struct {
	Argv []string          `toml:"argv"`
	In   string            `toml:"in"` // "host" or "container"
	Env  map[string]string `toml:"env"`
	User string            `toml:"user"` // in = "host": run as this user; default root
}

// RaiseOptions are the keys of `raise`: more room until the case closes.
type RaiseOptions struct {
	By Size `toml:"by"`
}

// ReclaimOptions are the keys of `reclaim`.
type ReclaimOptions struct {
	Amount Size `toml:"amount"` // none: all that can be reclaimed
}

// SignalOptions are the keys of `signal`.
type SignalOptions struct {
	Signal  string `toml:"signal"`  // "SIGUSR1"
	Process string `toml:"process"` // "pid1", "largest", "all" or "name=GLOB"
}

// WaitOptions are the keys of `wait`.
type WaitOptions struct {
	For        time.Duration `toml:"for"`
	UsageUnder Size          `toml:"usage-under"` // end early, as a success, once usage is under it
}

// LogOptions are the keys of `log`.
type LogOptions struct {
	Message string `toml:"message"`
	Level   string `toml:"level"` // debug, info, warn, error
}

// CoreDumpOptions are the keys of `core-dump`.
type CoreDumpOptions struct {
	Process  string `toml:"process"`  // "largest", "all", "pid1" or "name=GLOB"
	Filter   uint64 `toml:"filter"`   // as /proc/PID/coredump_filter, core(5)
	Compress bool   `toml:"compress"` // zstd, after the verdict
	MaxSize  Size   `toml:"max-size"`
}

// HeapDumpOptions are the keys of `heap-dump`.
type HeapDumpOptions struct {
	Runtime string `toml:"runtime"` // "auto" or one of match.runtime's
	Via     string `toml:"via"`     // "auto", "attach", "jcmd" or "core"
	Live    bool   `toml:"live"`    // JVM: collect first, write live objects only
	MaxSize Size   `toml:"max-size"`
}

// ThreadDumpOptions are the keys of `thread-dump`.
type ThreadDumpOptions struct {
	Locks bool `toml:"locks"` // JVM: with java.util.concurrent locks
}

// ClassHistogramOptions are the keys of `class-histogram`.
type ClassHistogramOptions struct {
	Live bool `toml:"live"`
}

// ProfileOptions are the keys of `profile`.
type ProfileOptions struct {
	Port     int      `toml:"port"`
	Path     string   `toml:"path"`     // "/debug/pprof"
	Profiles []string `toml:"profiles"` // "heap", "goroutine", ...
}

// NodeReportOptions are the keys of `node-report`.
type NodeReportOptions struct {
	Snapshot bool `toml:"snapshot"` // also a heap snapshot: 7-8 times the heap in memory
}

// WebhookOptions are the keys of `webhook`.
type WebhookOptions struct {
	URL        string            `toml:"url"`
	Headers    map[string]string `toml:"headers"`
	SecretFile string            `toml:"secret-file"` // HMAC-SHA256 key
	Retries    int               `toml:"retries"`
}

// UploadOptions are the keys of `upload`.
type UploadOptions struct {
	To        string   `toml:"to"`        // an [upload.NAME] of arbiter.toml
	Artifacts []string `toml:"artifacts"` // globs; none: all
	Prefix    string   `toml:"prefix"`
}

func (SnapshotOptions) Needs() Needs { return Any }
func (o ExecOptions) Needs() Needs {
	if o.In == "container" {
		return Running
	}
	return Any
}
func (RaiseOptions) Needs() Needs    { return Any }
func (ReclaimOptions) Needs() Needs  { return Any }
func (SignalOptions) Needs() Needs   { return Any }
func (WaitOptions) Needs() Needs     { return Any }
func (LogOptions) Needs() Needs      { return Any }
func (CoreDumpOptions) Needs() Needs { return Frozen }
func (o HeapDumpOptions) Needs() Needs {
	if o.Via == "core" {
		return Frozen
	}
	return Running
}
func (ThreadDumpOptions) Needs() Needs     { return Running }
func (ClassHistogramOptions) Needs() Needs { return Running }
func (ProfileOptions) Needs() Needs        { return Running }
func (NodeReportOptions) Needs() Needs     { return Running }
func (WebhookOptions) Needs() Needs        { return Any }
func (UploadOptions) Needs() Needs         { return Any }
