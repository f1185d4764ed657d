package arbiter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// reconcilers is how many containers are armed at the same time.
const reconcilers = 4

// finishGrace is how long the end of the daemon waits for the artifacts of
// cases that are closed already. Whoever starts next goes on with them.
const finishGrace = time.Second

// Options are what an Engine is made of.
type Options struct {
	FS       *cgroup.FS
	Proc     proc.FS
	Book     *casebook.Book
	Sources  []Source
	Budget   Budget
	Node     NodeLimits
	Recorder RecorderOptions
	Uploads  map[string]action.UploadTarget
	// Load reads the policy files. It is called at the start and by Reload.
	Load    func() (Loaded, error)
	Version string
	Log     hclog.Logger
}

// Loaded is a policy with the files that it came from.
type Loaded struct {
	Policy   *policy.Policy
	Files    []string
	Warnings []string
}

// Engine guards containers and carries out their cases.
type Engine struct {
	fs      *cgroup.FS
	proc    proc.FS
	book    *casebook.Book
	sources []Source
	budgets *budgets
	metrics *metrics
	queue   *queue
	changed broadcast
	log     hclog.Logger
	opts    Options
	started time.Time

	caseCtx  context.Context // ends when cases must
	endCases context.CancelCauseFunc
	wg       sync.WaitGroup  // cases
	afterCtx context.Context // ends when the work that cases left behind must
	endAfter context.CancelFunc
	after    sync.WaitGroup // that work: sums, compression, uploads

	mu          sync.Mutex
	policy      *policy.Policy
	loaded      api.PolicyStatus
	containers  map[string]*container // by cgroup path
	cases       map[string]*Case      // open ones, by id
	health      map[string]api.SourceStatus
	disarmed    map[string]bool
	disarmedAll bool
	rail        string // why no case may open now: the node
	stopping    string // the same: the daemon's end
}

// New makes an engine with the policy loaded. It changes nothing yet.
func New(o Options) (*Engine, error) {
	e := &Engine{
		fs: o.FS, proc: o.Proc, book: o.Book, sources: o.Sources, budgets: newBudgets(o.Budget),
		queue: newQueue(), log: o.Log, opts: o, started: time.Now(),
		containers: map[string]*container{}, cases: map[string]*Case{},
		health: map[string]api.SourceStatus{}, disarmed: map[string]bool{},
	}
	e.fs.MaxGuarded = o.Budget.Armed
	e.caseCtx, e.endCases = context.WithCancelCause(context.Background())
	e.afterCtx, e.endAfter = context.WithCancel(context.Background())
	e.metrics = newMetrics(e)
	for _, s := range o.Sources {
		e.health[s.Name()] = api.SourceStatus{Name: s.Name(), Since: e.started}
	}
	if err := e.load(); err != nil {
		return nil, err
	}
	return e, nil
}

// Run guards containers until ctx is done; then every case gets its rule's
// otherwise, and everything is disarmed. The cause of ctx is told to the cases.
func (e *Engine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watchCtx, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	e.fs.Handle(e.handle)
	watching := make(chan error, 1)
	go func() { watching <- e.fs.Run(watchCtx) }()

	var wg sync.WaitGroup
	for range reconcilers {
		wg.Go(func() { e.queue.work(ctx, e.reconcile) })
	}
	for _, s := range e.sources {
		wg.Go(func() { e.follow(ctx, s) })
	}
	wg.Go(func() { e.watchNode(ctx) })
	wg.Go(func() { e.prune(ctx) })
	wg.Go(func() {
		if err := e.book.FinishLeft(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("finish what an earlier daemon left", "error", err)
		}
	})
	uploads := action.Uploader{Cases: e.book.Dir(), Targets: e.opts.Uploads, Log: e.log.Named("upload")}
	wg.Go(func() { uploads.Run(ctx) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-watching:
		err = fmt.Errorf("watch cgroups: %w", err)
	}
	cause := context.Cause(ctx)
	stop() // nothing is armed any more, also if the watching failed
	e.shutdown(cause)
	stopWatching()
	wg.Wait()
	return err
}

// follow runs one source.
func (e *Engine) follow(ctx context.Context, s Source) {
	log := e.log.Named(s.Name())
	err := s.Run(ctx,
		func(ev cri.Event) { e.observe(s.Name(), ev) },
		func(err error) { e.setHealth(log, s.Name(), err) })
	if err != nil && ctx.Err() == nil {
		log.Error("source ended", "error", err)
		e.setHealth(log, s.Name(), err)
	}
}

// setHealth notes whether a source answers, and logs each change.
func (e *Engine) setHealth(log hclog.Logger, name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.health[name]
	now := api.SourceStatus{Name: name, Up: err == nil, Since: time.Now()}
	if err != nil {
		now.Error = err.Error()
	}
	if was.Up == now.Up && was.Error == now.Error {
		return
	}
	e.health[name] = now
	if now.Up {
		log.Info("source up")
	} else {
		log.Warn("source down", "error", err)
	}
}

func (e *Engine) sourceStatus() []api.SourceStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []api.SourceStatus
	for _, s := range e.sources {
		out = append(out, e.health[s.Name()])
	}
	return out
}

// load reads the policy. A policy that cannot be read or has errors leaves the
// one in force as it is.
func (e *Engine) load() error {
	l, err := e.opts.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.metrics.reloadFailed.Set(1)
		if e.loaded.Error == "" {
			e.loaded.ErrorSince = time.Now()
		}
		e.loaded.Error = err.Error()
		return err
	}
	e.policy = l.Policy
	e.loaded = api.PolicyStatus{
		Digest: l.Policy.Digest, Rules: len(l.Policy.Rules), Files: l.Files,
		Loaded: time.Now(), Warnings: l.Warnings,
	}
	e.disarmedAll = false
	clear(e.disarmed)
	e.metrics.reloadFailed.Set(0)
	e.metrics.policyInfo.Reset()
	e.metrics.policyInfo.WithLabelValues(l.Policy.Digest).Set(1)
	for path := range e.containers {
		e.queue.add(path)
	}
	return nil
}

// Metrics answers /metrics.
func (e *Engine) Metrics() http.Handler { return e.metrics.handler() }

// shutdown ends every case by its rule's otherwise, gives to the kernel what
// does not end in time, and disarms everything.
func (e *Engine) shutdown(cause error) {
	why := "arbiterd is stopping"
	kind := evOtherwise
	if errors.Is(cause, ErrOrphaned) {
		why, kind = cause.Error(), evGiveUp
	}
	e.mu.Lock()
	e.stopping = why
	open := slices.Collect(maps.Values(e.cases))
	e.mu.Unlock()
	for _, c := range open {
		c.post(event{kind: kind, why: why})
	}
	if !waitFor(&e.wg, 4*time.Second) {
		e.endCases(errors.New(why))
		for _, c := range open {
			c.post(event{kind: evGiveUp, why: why})
		}
		waitFor(&e.wg, giveBackWithin)
	}
	e.endCases(errors.New(why))
	e.disarmAll()
	if !waitFor(&e.after, finishGrace) {
		e.endAfter()
		waitFor(&e.after, finishGrace)
	}
}

// ErrOrphaned is the cause with which Run's context ends when the supervisor
// died: nothing would let go of held containers if this process died as well,
// so the kernel decides at once.
var ErrOrphaned = errors.New("the supervisor died")

// disarmAll lets go of every container at the same time.
func (e *Engine) disarmAll() {
	ctx, cancel := context.WithTimeout(context.Background(), giveBackWithin)
	defer cancel()
	e.mu.Lock()
	all := slices.Collect(maps.Values(e.containers))
	e.mu.Unlock()
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
	for _, ct := range all {
		if ct.cg == nil {
			continue
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := ct.cg.Disarm(ctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
				e.log.Error("disarm", "cgroup", ct.id.Cgroup, "error", err)
			}
		})
	}
	wg.Wait()
}

// waitFor waits for wg, for at most d.
func waitFor(wg *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
