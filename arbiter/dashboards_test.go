package arbiter

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// The shipped alerts and the dashboard ask for metrics and labels that exist.
func TestShippedQueriesNameMetrics(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	labels := map[string]bool{"instance": true, "job": true, "le": true} // of the scrape and of histograms
	descs := make(chan *prometheus.Desc, 1000)
	newMetrics(&Engine{}).registry.Describe(descs)
	close(descs)
	described := regexp.MustCompile(`fqName: "(arbiter_\w+)".*variableLabels: \{([^}]*)\}`)
	for d := range descs {
		if m := described.FindStringSubmatch(d.String()); m != nil {
			known[m[1]] = true
			for l := range strings.SplitSeq(m[2], ",") {
				labels[l] = true
			}
		}
	}
	name := regexp.MustCompile(`\barbiter_\w+`)
	label := regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)\\?"`)
	for _, file := range []string{"../etc/prometheus/arbiter.rules.yaml", "../etc/grafana/arbiter.json"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := name.FindAllString(string(b), -1)
		if len(used) < 5 {
			t.Errorf("%s: only %d metrics", file, len(used))
		}
		for _, n := range used {
			base := n
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !known[base] {
				t.Errorf("%s: there is no metric %s", file, n)
			}
		}
		for _, m := range label.FindAllStringSubmatch(string(b), -1) {
			if !labels[m[1]] {
				t.Errorf("%s: no metric has a label %s", file, m[1])
			}
		}
	}
}
