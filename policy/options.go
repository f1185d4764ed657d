package policy

import "time"

// SnapshotOptions are the keys of `snapshot`.
type SnapshotOptions struct{}

// ExecOptions are the keys of `exec`.
type ExecOptions struct {
	Argv []string          `toml:"argv" required:"true" doc:"The program, as an absolute path, and its arguments. No shell reads it."`
	In   string            `toml:"in" default:"host" values:"host|container" doc:"Where it runs. In the container it needs the container running, and room."`
	Env  map[string]string `toml:"env" doc:"Environment variables besides ARBITER_*."`
	User string            `toml:"user" also:"root" doc:"On the host: the user that it runs as."`
}

// RaiseOptions are the keys of `raise`: more room until the case closes.
type RaiseOptions struct {
	By Size `toml:"by" required:"true" doc:"Room borrowed above the limit until the case closes."`
}

// ReclaimOptions are the keys of `reclaim`.
type ReclaimOptions struct {
	Amount Size `toml:"amount" also:"all that can be reclaimed" doc:"How much page cache and reclaimable kernel memory to give back."`
}

// SignalOptions are the keys of `signal`.
type SignalOptions struct {
	Signal  string `toml:"signal" required:"true" doc:"The signal's name: SIGUSR1. It is delivered once the process runs again."`
	Process string `toml:"process" default:"pid1" unit:"process" doc:"Which process: pid1 (the container's first), largest, all, or name=GLOB."`
}

// WaitOptions are the keys of `wait`.
type WaitOptions struct {
	For        time.Duration `toml:"for" required:"true" doc:"How long."`
	UsageUnder Size          `toml:"usage-under" doc:"End early, as a success, once usage is under this."`
}

// LogOptions are the keys of `log`.
type LogOptions struct {
	Message string `toml:"message" required:"true" doc:"The line that the daemon logs, with the case's data in its fields."`
	Level   string `toml:"level" default:"info" values:"debug|info|warn|error" doc:"How loud."`
}

// CoreDumpOptions are the keys of `core-dump`.
type CoreDumpOptions struct {
	Process  string `toml:"process" default:"largest" unit:"process" doc:"Which process: largest, all, pid1, or name=GLOB."`
	Filter   uint64 `toml:"filter" default:"0x33" doc:"Which mappings, as /proc/PID/coredump_filter, core(5)."`
	Compress bool   `toml:"compress" default:"true" doc:"Compress with zstd, after the verdict."`
	MaxSize  Size   `toml:"max-size" unit:"bytes" also:"none" doc:"Leave out memory beyond this many bytes of it. The core opens, and the case says what is missing."`
}

// HeapDumpOptions are the keys of `heap-dump`.
type HeapDumpOptions struct {
	Runtime string `toml:"runtime" default:"auto" values:"auto|jvm|go|node|python|dotnet|native" doc:"Whose heap; auto is what the largest process turns out to be."`
	Via     string `toml:"via" default:"auto" values:"auto|attach|jcmd|core" doc:"JVM: attach speaks to it (it must run, and have room), jcmd uses the container's JDK, core dumps a core and converts it offline, so that the JVM never runs again."`
	Live    bool   `toml:"live" also:"false" doc:"JVM: collect garbage first and write live objects only."`
	MaxSize Size   `toml:"max-size" unit:"bytes" also:"none" doc:"Give up, with a failure, beyond this many bytes on disk."`
}

// ThreadDumpOptions are the keys of `thread-dump`.
type ThreadDumpOptions struct {
	Locks bool `toml:"locks" also:"false" doc:"JVM: with java.util.concurrent locks."`
}

// ClassHistogramOptions are the keys of `class-histogram`.
type ClassHistogramOptions struct {
	Live bool `toml:"live" also:"false" doc:"JVM: collect garbage first and count live objects only."`
}

// ProfileOptions are the keys of `profile`.
type ProfileOptions struct {
	Port     int      `toml:"port" required:"true" doc:"Where the process serves pprof, on the loopback of the container's network namespace."`
	Path     string   `toml:"path" default:"/debug/pprof" doc:"The handler's path."`
	Profiles []string `toml:"profiles" default:"heap|goroutine" doc:"Which profiles to fetch."`
}

// NodeReportOptions are the keys of `node-report`.
type NodeReportOptions struct {
	Snapshot bool `toml:"snapshot" also:"false" doc:"Also a heap snapshot: it takes 7 to 8 times the heap in memory, and minutes."`
}

// WebhookOptions are the keys of `webhook`.
type WebhookOptions struct {
	URL        string            `toml:"url" required:"true" doc:"Where the case is posted as JSON: http or https."`
	Headers    map[string]string `toml:"headers" doc:"Headers to send besides. For a secret use secret-file."`
	SecretFile string            `toml:"secret-file" doc:"A file on the host whose content signs the body with HMAC-SHA256, in the header X-Arbiter-Signature."`
	Retries    int               `toml:"retries" default:"3" doc:"How often to try again, within the timeout."`
}

// UploadOptions are the keys of `upload`.
type UploadOptions struct {
	To        string   `toml:"to" required:"true" doc:"An [upload.NAME] of arbiter.toml."`
	Artifacts []string `toml:"artifacts" also:"all" doc:"Globs on the names of the case's artifacts."`
	Prefix    string   `toml:"prefix" doc:"Put before each object's name."`
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
