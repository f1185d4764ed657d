package arbiter

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
)

// metrics are the counters on /metrics. What can be read from the engine when
// it is asked for is collected then, and kept nowhere.
type metrics struct {
	registry      *prometheus.Registry
	cases         *prometheus.CounterVec
	holdSeconds   prometheus.Histogram
	triggerToHold prometheus.Histogram
	steps         *prometheus.HistogramVec
	escapes       prometheus.Counter
	notOurs       prometheus.Counter
	artifactBytes prometheus.Counter
	refusals      *prometheus.CounterVec
	policyInfo    *prometheus.GaugeVec
	reloadFailed  prometheus.Gauge
}

func newMetrics(e *Engine) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		cases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "arbiter_cases_total", Help: "Closed cases."}, []string{"rule", "trigger", "outcome"}),
		holdSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "arbiter_hold_seconds", Help: "How long containers stood still.",
			Buckets: []float64{.1, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600}}),
		triggerToHold: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "arbiter_trigger_to_hold_seconds", Help: "From the daemon's wake-up to a container that stands still.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 3}}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "arbiter_step_seconds", Help: "How long steps took.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 120, 300}}, []string{"action", "result"}),
		escapes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "arbiter_escapes_total", Help: "Kernel kills inside guarded containers."}),
		notOurs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "arbiter_foreign_limit_hits_total", Help: "Limits above guarded containers hit by a container that no rule covers."}),
		artifactBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "arbiter_artifact_bytes_total", Help: "Bytes of artifacts written."}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "arbiter_budget_refusals_total", Help: "What a budget refused."}, []string{"budget"}),
		policyInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "arbiter_policy_info", Help: "The policy in force; always 1."}, []string{"digest"}),
		reloadFailed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "arbiter_policy_reload_failed", Help: "1 while the last reload was refused and an older policy is in force."}),
	}
	for _, b := range []string{"held", "armed", "borrowed"} {
		m.refusals.WithLabelValues(b)
	}
	m.registry.MustRegister(m.cases, m.holdSeconds, m.triggerToHold, m.steps, m.escapes, m.notOurs, m.artifactBytes,
		m.refusals, m.policyInfo, m.reloadFailed, &collector{e: e},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// collector reads the engine's present state on each scrape.
type collector struct{ e *Engine }

var (
	descHeld     = prometheus.NewDesc("arbiter_held", "Containers that stand still now.", nil, nil)
	descGuards   = prometheus.NewDesc("arbiter_guards", "Matched containers by the state of their guard.", []string{"state"}, nil)
	descBorrowed = prometheus.NewDesc("arbiter_borrowed_bytes", "Memory lent above original limits.", nil, nil)
	descSourceUp = prometheus.NewDesc("arbiter_source_up", "1 while the source of containers answers.", []string{"source"}, nil)

	containerLabels = []string{"namespace", "pod", "container", "cgroup"}
	descUsage       = prometheus.NewDesc("arbiter_container_usage_bytes", "Memory charged to a guarded container.", containerLabels, nil)
	descUnrecl      = prometheus.NewDesc("arbiter_container_unreclaimable_bytes", "Memory that cannot be reclaimed.", containerLabels, nil)
	descLimit       = prometheus.NewDesc("arbiter_container_limit_bytes", "The tightest limit that binds.", containerLabels, nil)
	descToLimit     = prometheus.NewDesc("arbiter_container_time_to_limit_seconds", "At the present slope; absent while usage does not grow.", containerLabels, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHeld, descGuards, descBorrowed, descSourceUp, descUsage, descUnrecl, descLimit, descToLimit} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	_, _, borrowed := c.e.budgets.spent()
	gauge(descHeld, float64(len(c.e.Holds())))
	gauge(descBorrowed, float64(borrowed))
	for _, s := range c.e.sourceStatus() {
		up := 0.0
		if s.Up {
			up = 1
		}
		gauge(descSourceUp, up, s.Name)
	}
	states := map[cgroup.State]int{cgroup.Armed: 0, cgroup.Guarded: 0, cgroup.HeldNow: 0, cgroup.Partial: 0, cgroup.Failed: 0, cgroup.Watched: 0, cgroup.Unarmed: 0}
	for _, ct := range c.e.snapshot() {
		state, u, slope := ct.figures()
		states[state]++
		labels := []string{ct.id.Pod.Namespace, ct.id.Pod.Name, ct.id.Name, ct.id.Cgroup}
		if state == cgroup.Unarmed || u == nil {
			continue
		}
		gauge(descUsage, float64(u.Current), labels...)
		gauge(descUnrecl, float64(u.Unreclaimable), labels...)
		if n, ok := u.Limit.Bytes(); ok {
			gauge(descLimit, float64(n), labels...)
		}
		if slope.TimeToLimit > 0 {
			gauge(descToLimit, slope.TimeToLimit.Seconds(), labels...)
		}
	}
	for s, n := range states {
		gauge(descGuards, float64(n), string(s))
	}
}
