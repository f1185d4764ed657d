package action

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// Webhook posts the case as JSON.
//
// With a secret, X-Arbiter-Signature is "sha256=" and the hexadecimal
// HMAC-SHA256 of the body. Idempotency-Key is the same in every attempt. What
// may hold secrets (the URL beyond its host, header values, the answer's body)
// is never logged, recorded or part of an error.
type Webhook struct {
	policy.WebhookOptions
	transport http.RoundTripper
	backoff   time.Duration // before the first retry; doubles
}

var _ Action = Webhook{}

func newWebhook(o policy.WebhookOptions) Webhook {
	return Webhook{o, &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}, 500 * time.Millisecond}
}

const (
	attemptTimeout = 10 * time.Second // a server that says nothing must not use up all attempts
	maxBackoff     = 10 * time.Second
	maxAnswer      = 64 << 10
	maxSecret      = 64 << 10
)

// Run posts until an attempt succeeds with 2xx. Network errors, 5xx and 429
// are tried again; redirects are not followed, since the signature is meant
// for one host.
func (w Webhook) Run(ctx context.Context, env Env) (Result, error) {
	target, err := url.Parse(w.URL)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return Result{}, errors.New("webhook: url: want http:// or https:// and a host")
	}
	body := env.CaseJSON()
	signature, err := w.sign(body)
	if err != nil {
		return Result{}, fmt.Errorf("webhook: %w", err)
	}
	name := target.Scheme + "://" + target.Host + "/…"
	for attempt := 1; ; attempt++ {
		status, again, err := w.post(ctx, env, body, signature)
		res := Result{
			Summary: fmt.Sprintf("%s answered %d, attempt %d", name, status, attempt),
			Details: map[string]string{"status": strconv.Itoa(status), "attempts": strconv.Itoa(attempt)},
		}
		if status == 0 {
			res.Summary = fmt.Sprintf("%s did not answer, attempt %d", name, attempt)
			delete(res.Details, "status")
		}
		if err == nil {
			return res, nil
		}
		if again < 0 || attempt > w.Retries {
			return res, fmt.Errorf("webhook %s, attempt %d: %w", name, attempt, err)
		}
		if wait := pause(ctx, max(again, w.delay(attempt))); wait != nil {
			return res, fmt.Errorf("webhook %s, attempt %d: %w", name, attempt, errors.Join(wait, err))
		}
	}
}

// delay is exponential with a quarter of jitter: many nodes may fail at once.
func (w Webhook) delay(attempt int) time.Duration {
	d := min(w.backoff<<min(attempt-1, 16), maxBackoff)
	return d + rand.N(d/4+1)
}

// post makes one attempt. again is the least time after which another makes
// sense, or negative if none does.
func (w Webhook) post(ctx context.Context, env Env, body []byte, signature string) (status int, again time.Duration, err error) {
	actx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(actx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return 0, -1, errors.New("url: cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	for key, value := range w.Headers {
		req.Header.Set(key, value)
	}
	req.Header.Set("User-Agent", "arbiter")
	req.Header.Set("Idempotency-Key", env.Case+"/"+env.Step.Name)
	if signature != "" {
		req.Header.Set("X-Arbiter-Signature", signature)
	}
	client := http.Client{
		Transport:     w.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(req)
	if err != nil {
		return 0, retryable(ctx), withoutURL(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer)) // lets the server end its writing
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return code, 0, nil
	case code >= 300 && code < 400:
		return code, -1, fmt.Errorf("status %d: redirects are not followed", code)
	case code == http.StatusTooManyRequests || code >= 500:
		return code, retryAfter(answer.Header), fmt.Errorf("status %d", code)
	default:
		return code, -1, fmt.Errorf("status %d", code)
	}
}

// retryable is 0 unless the step's own time is over.
func retryable(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return -1
	}
	return 0
}

// withoutURL takes the URL, which may hold secrets, out of an error.
func withoutURL(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter is the server's wish in seconds; dates are not honoured.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}

// sign is the signature header's value, "" without a secret.
func (w Webhook) sign(body []byte) (string, error) {
	if w.SecretFile == "" {
		return "", nil
	}
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return "", fmt.Errorf("secret-file: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil)), nil
}

// readSecret reads a small regular file without the newline that editors put
// at its end. Non-blocking, so that a FIFO in its place cannot hold the step.
func readSecret(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxSecret {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", name, maxSecret)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return nil, fmt.Errorf("%s: empty", name)
	}
	return []byte(secret), nil
}

// pause waits for d, unless ctx would end first: then it does not begin.
func pause(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return context.DeadlineExceeded
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
