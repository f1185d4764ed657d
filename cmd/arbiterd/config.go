package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/policyfs"
	"github.com/arbiterd/arbiter/policy"
)

// config is arbiter.toml. Every key has a default; an empty file runs.
type config struct {
	API struct {
		Socket string `toml:"socket" default:"/run/arbiter/arbiter.sock" doc:"Unix socket of the API."`
		Group  string `toml:"group" doc:"Members of this group may read; only root may write."`
	} `toml:"api"`
	Policy struct {
		Dirs []string `toml:"dirs" also:"/usr/lib/arbiter/policy.d, /etc/arbiter/policy.d, /run/arbiter/policy.d" doc:"Policy directories; a later one masks a file of the same name."`
	} `toml:"policy"`
	Metrics struct {
		Listen string `toml:"listen" doc:"TCP address of /metrics, as in 127.0.0.1:9763; the socket always has it."`
	} `toml:"metrics"`
	State struct {
		Dir     string        `toml:"dir" default:"/var/lib/arbiter" doc:"Where cases are kept."`
		Retain  time.Duration `toml:"retain" default:"14d" doc:"Closed cases older than this are removed."`
		MaxSize policy.Size   `toml:"max-size" default:"20GiB" doc:"Of all cases together."`
		MinFree policy.Size   `toml:"min-free" default:"10%" doc:"What artifacts leave free on the disk."`
	} `toml:"state"`
	Source struct {
		Containerd struct {
			Address    string   `toml:"address" default:"/run/containerd/containerd.sock" doc:"containerd's socket; empty: no containerd."`
			Namespaces []string `toml:"namespaces" also:"k8s.io" doc:"containerd namespaces to follow."`
		} `toml:"containerd"`
		NRI struct {
			Socket string `toml:"socket" default:"/var/run/nri/nri.sock" doc:"The NRI socket; empty: no NRI."`
			Index  string `toml:"index" default:"10" doc:"Two digits: the plugin's place among others."`
		} `toml:"nri"`
		Cgroupfs struct {
			Paths []string `toml:"paths" also:"/system.slice/*.service" doc:"Globs of plain cgroups to follow; an empty list: none."`
		} `toml:"cgroupfs"`
	} `toml:"source"`
	Budget struct {
		Held     int         `toml:"held" default:"16" doc:"Containers that stand still at once."`
		Armed    int         `toml:"armed" default:"64" doc:"Containers that the kernel does not kill by itself at once."`
		Borrowed policy.Size `toml:"borrowed" default:"10%" doc:"Memory lent above limits at once; % of the node's."`
		Dumps    int         `toml:"dumps" default:"2" doc:"Core and heap dumps written at once."`
	} `toml:"budget"`
	Node struct {
		MinAvailable policy.Size `toml:"min-available" also:"min(5%, 512MiB)" doc:"With less memory available on the node no case opens and lent memory is taken back."`
		MaxPressure  float64     `toml:"max-pressure" default:"40%" unit:"percent" doc:"The same at this share of time in which all tasks waited for memory."`
	} `toml:"node"`
	Recorder struct {
		Interval time.Duration `toml:"interval" default:"1s" doc:"Between two points of a container's memory curve."`
		Window   time.Duration `toml:"window" default:"15m" doc:"How far back a curve goes."`
	} `toml:"recorder"`
	Upload map[string]uploadConfig `toml:"upload"`
	Log    struct {
		Level  string `toml:"level" default:"info" values:"trace|debug|info|warn|error"`
		Format string `toml:"format" default:"text" values:"text|json"`
	} `toml:"log"`
}

// uploadConfig is one [upload.NAME]: an S3-compatible store.
type uploadConfig struct {
	Endpoint        string `toml:"endpoint" required:"true" doc:"https://host[:port]"`
	Bucket          string `toml:"bucket" required:"true"`
	CredentialsFile string `toml:"credentials-file" doc:"An AWS credentials file."`
}

// defaultConfig is where arbiter.toml is looked for if no other is named.
const defaultConfig = "/etc/arbiter/arbiter.toml"

// loadConfig reads arbiter.toml. The default file may be missing; one that was
// named may not.
func loadConfig(path string) (config, error) {
	var c config
	data, err := os.ReadFile(path)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || path != defaultConfig) {
		return c, err
	}
	diags := policy.DecodeStrict(policy.File{Name: path, Data: data}, &c)
	if diags.HasErrors() {
		return c, diagError(diags.Errors())
	}
	if c.Policy.Dirs == nil {
		c.Policy.Dirs = policyfs.DefaultDirs()
	}
	if c.Source.Containerd.Namespaces == nil {
		c.Source.Containerd.Namespaces = []string{"k8s.io"}
	}
	if c.Source.Cgroupfs.Paths == nil {
		c.Source.Cgroupfs.Paths = []string{"/system.slice/*.service"}
	}
	return c, c.check(path)
}

// check refuses values that decode and still make no sense.
func (c config) check(path string) error {
	for _, n := range []struct {
		key   string
		value int
	}{{"budget.held", c.Budget.Held}, {"budget.armed", c.Budget.Armed}, {"budget.dumps", c.Budget.Dumps}} {
		if n.value < 0 {
			return fmt.Errorf("%s: %s: must not be negative", path, n.key)
		}
	}
	if c.Recorder.Interval <= 0 {
		return fmt.Errorf("%s: recorder.interval: must be more than nothing", path)
	}
	return nil
}

// diagError is one error of many lines.
func diagError(ds policy.Diagnostics) error {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return errors.New(strings.Join(lines, "\n"))
}

// budget is the node's budget in bytes and counts.
func (c config) budget(nodeBytes uint64) arbiter.Budget {
	return arbiter.Budget{
		Held: c.Budget.Held, Armed: c.Budget.Armed, Dumps: c.Budget.Dumps,
		BorrowedBytes: c.Budget.Borrowed.Of(nodeBytes),
	}
}

func (c config) limits() casebook.Limits {
	return casebook.Limits{Retain: c.State.Retain, MaxBytes: c.State.MaxSize, MinFree: c.State.MinFree}
}

// loadPolicy reads and decodes the policy directories.
func (c config) loadPolicy() (arbiter.Loaded, error) {
	files, err := policyfs.Load(c.Policy.Dirs)
	if err != nil {
		return arbiter.Loaded{}, err
	}
	p, diags := policy.Decode(files)
	if p == nil {
		return arbiter.Loaded{}, diagError(diags.Errors())
	}
	l := arbiter.Loaded{Policy: p}
	for _, f := range files {
		l.Files = append(l.Files, f.Name)
	}
	for _, d := range diags.Warnings() {
		l.Warnings = append(l.Warnings, d.String())
	}
	return l, nil
}
