// Package e2e tests Arbiter with the runtime that its users run: containerd
// with its shim and runc, built from their modules, booted privately (own
// root, state and sockets) beside whatever the host runs, and driven through
// the CRI as a kubelet would. Nothing is mocked.
//
// It is a module of its own, so that the runtimes' dependencies are not the
// product's. The runtimes are built once per go.sum into .cache/e2e of the
// product's module; ARBITER_E2E_BIN names a directory that has everything
// ready, for machines without a compiler (tests/guest).
//
// The rig plays the kubelet in one respect: it makes the pod's cgroup with the
// pod's limit before the pod, since the CRI leaves that level to its caller.
package e2e
