package action

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

func hook(url string, retries int) Webhook {
	w := newWebhook(policy.WebhookOptions{URL: url, Retries: retries})
	w.backoff = time.Millisecond
	return w
}

func TestWebhookPostsSigned(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	w := hook(server.URL+"/hook/T0KEN?a=S3CRET", 0)
	w.SecretFile = secret
	w.Headers = map[string]string{"X-Team": "pay", "X-Arbiter-Signature": "forged"}
	res, err := w.Run(t.Context(), e.Env)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte("k3y"))
	mac.Write(body)
	want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	if got.Method != http.MethodPost || string(body) != string(e.CaseJSON()) || got.Header.Get("X-Arbiter-Signature") != want ||
		got.Header.Get("Content-Type") != "application/json" || got.Header.Get("X-Team") != "pay" ||
		got.Header.Get("Idempotency-Key") != e.Case+"/a-step" {
		t.Errorf("got %s %s %v", got.Method, body, got.Header)
	}
	if res.Details["status"] != "200" || strings.Contains(res.Summary, "T0KEN") || strings.Contains(res.Summary, "S3CRET") {
		t.Errorf("got %+v", res)
	}
}

func TestWebhookRetries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answers []int // the last one is repeated
		retries int
		calls   int32
		ok      bool
	}{
		"ok":            {[]int{204}, 3, 1, true},
		"busy, then ok": {[]int{503, 429, 200}, 3, 3, true},
		"always busy":   {[]int{500}, 2, 3, false},
		"no retries":    {[]int{500}, 0, 1, false},
		"refused":       {[]int{403}, 3, 1, false},
		"redirect":      {[]int{307}, 3, 1, false},
		"permanent":     {[]int{301}, 3, 1, false},
		"not changed":   {[]int{304}, 3, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n := int(calls.Add(1))
				code := tc.answers[min(n, len(tc.answers))-1]
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(code)
			}))
			defer server.Close()
			e := newTestEnv(t)
			res, err := hook(server.URL, tc.retries).Run(t.Context(), e.Env)
			if (err == nil) != tc.ok || calls.Load() != tc.calls || res.Details["attempts"] != fmt.Sprint(tc.calls) {
				t.Errorf("%d calls, %+v, %v", calls.Load(), res, err)
			}
		})
	}
}

// Whatever goes wrong, neither the URL's secrets nor the answer are told.
func TestWebhookTellsNoSecrets(t *testing.T) {
	t.Parallel()
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprint(w, r.URL, r.Header)
	}))
	defer echo.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, base := range map[string]string{"answer": echo.URL, "untrusted certificate": untrusted.URL, "refused": closed.URL, "no scheme": "ftp://x", "no URL": "http://[", "control": "http://h\x7f"} {
		t.Run(name, func(t *testing.T) {
			e := newTestEnv(t)
			url := strings.Replace(base, "://", "://user:S3CRET@", 1) + "/S3CRET?k=S3CRET"
			w := hook(url, 1)
			w.Headers = map[string]string{"Authorization": "Bearer S3CRET"}
			res, err := w.Run(t.Context(), e.Env)
			if err == nil {
				t.Fatalf("got %+v, want an error", res)
			}
			if told := err.Error() + fmt.Sprint(res) + e.log.String(); strings.Contains(told, "S3CRET") {
				t.Errorf("tells a secret: %s", told)
			}
		})
	}
}

func TestWebhookHeedsItsDeadline(t *testing.T) {
	t.Parallel()
	stuck := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stuck:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(stuck)
	e := newTestEnv(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if res, err := hook(server.URL, 5).Run(ctx, e.Env); !errors.Is(err, context.DeadlineExceeded) || res.Details["attempts"] != "1" {
		t.Errorf("got %+v, %v", res, err)
	}
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	}))
	defer busy.Close()
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if res, err := hook(busy.URL, 5).Run(ctx, e.Env); !errors.Is(err, context.DeadlineExceeded) || res.Details["attempts"] != "1" {
		t.Errorf("a retry after the deadline: got %+v, %v", res, err)
	}
}

func TestReadSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := readSecret(write("ok", " a b \r\n")); err != nil || string(got) != " a b " {
		t.Errorf("got %q, %v", got, err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{write("empty", "\n"), write("big", strings.Repeat("x", maxSecret+1)), fifo, dir, dir + "/none"} {
		if got, err := readSecret(path); err == nil {
			t.Errorf("%s: got %q, want an error", path, got)
		}
	}
}
