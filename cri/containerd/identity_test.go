package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/arbiterd/arbiter/cri"
)

const (
	ctrID = "2f0b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809"
	podID = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	slice = "kubepods-burstable-pod0c1d_2e3f.slice"
	place = "/kubepods.slice/kubepods-burstable.slice/" + slice

	ctrSpec = `{"ociVersion":"1.3.0","process":{"args":["/x"]},"annotations":{
		"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"container",
		"io.kubernetes.cri.sandbox-id":"` + podID + `","io.kubernetes.cri.sandbox-name":"checkout",
		"io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"0c1d-2e3f"},
		"linux":{"cgroupsPath":"` + slice + `:cri-containerd:` + ctrID + `"}}`
	ctrMeta = `{"Version":"v1","Metadata":{"ID":"` + ctrID + `","Name":"app_checkout_shop_0c1d-2e3f_2","SandboxID":"` + podID + `",
		"ImageName":"registry.local/shop/checkout:2","Config":{"metadata":{"name":"app","attempt":2},
		"image":{"image":"sha256:1234","user_specified_image":"registry.local/shop/checkout:2"},"labels":{"io.kubernetes.container.name":"app"}}}}`
	podMeta = `{"Version":"v1","Metadata":{"ID":"` + podID + `","Config":{"metadata":{"name":"checkout","uid":"0c1d-2e3f","namespace":"shop"},
		"labels":{"team":"payments"},"annotations":{"arbiter/policy":"heap"},"linux":{"cgroup_parent":"` + slice + `"}}}}`
)

func anyJSON(s string) *anypb.Any { return &anypb.Any{TypeUrl: "json", Value: []byte(s)} }

func criRecord(spec, meta string) record {
	return record{"k8s.io", &containersapi.Container{
		ID: ctrID, Image: "sha256:1234", Labels: map[string]string{kindLabel: "container"}, Spec: anyJSON(spec),
		Extensions: map[string]*anypb.Any{containerMeta: anyJSON(meta)},
	}}
}

func podRecord(meta string) record {
	return record{"k8s.io", &containersapi.Container{
		ID: podID, Labels: map[string]string{kindLabel: kindSandbox},
		Spec:       anyJSON(`{"linux":{"cgroupsPath":"` + slice + ":cri-containerd:" + podID + `"}}`),
		Extensions: map[string]*anypb.Any{sandboxMeta: anyJSON(meta)},
	}}
}

// testSource has roots of its own, and a cgroup in the memory hierarchy.
func testSource(t *testing.T, cgroups ...string) *Source {
	t.Helper()
	s, err := New(Config{MemoryRoot: t.TempDir(), ProcRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, c := range cgroups {
		if err := os.MkdirAll(filepath.Join(s.cfg.MemoryRoot, c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestIdentifySystemd reads what containerd stores with the systemd driver.
func TestIdentifySystemd(t *testing.T) {
	t.Parallel()
	cgroup := place + "/cri-containerd-" + ctrID + ".scope"
	s := testSource(t, cgroup)
	s.keepPods([]record{podRecord(podMeta), criRecord(ctrSpec, ctrMeta)})
	got, ok := s.identify(t.Context(), criRecord(ctrSpec, ctrMeta), 42)
	want := cri.Container{
		ID: ctrID, Name: "app", Image: "registry.local/shop/checkout:2", RestartCount: 2, Pid: 42, Cgroup: cgroup, Source: "containerd",
		Pod: cri.Pod{ID: podID, UID: "0c1d-2e3f", Namespace: "shop", Name: "checkout", QoS: cri.Burstable, Cgroup: place,
			Labels: map[string]string{"team": "payments"}, Annotations: map[string]string{"arbiter/policy": "heap"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("ok %v, -want +got:\n%s", ok, diff)
	}
	if _, ok := s.identify(t.Context(), podRecord(podMeta), 42); ok {
		t.Error("a sandbox counts as a container")
	}
}

// TestIdentifyByPid is for containers whose specification does not say where
// they are, or says it wrongly.
func TestIdentifyByPid(t *testing.T) {
	t.Parallel()
	plain := func(spec string) record {
		return record{"plain", &containersapi.Container{ID: ctrID, Image: "img", Spec: anyJSON(spec)}}
	}
	tests := []struct {
		name, spec, proc, want string
	}{
		{"where it asked to be", `{"linux":{"cgroupsPath":"/plain/x"}}`, "", "/plain/x"},
		{"relative to the runtime", `{"linux":{"cgroupsPath":"x/y"}}`, "4:memory:/runtime/x/y\n", "/runtime/x/y"},
		{"below its own", `{}`, "0::/docker/" + ctrID + "/init.scope\n", "/docker/" + ctrID},
		{"gone", `{"linux":{"cgroupsPath":"/gone"}}`, "0::/gone\n", ""},
		{"in the root", `{"linux":{"cgroupsPath":"/"}}`, "0::/\n", ""},
		{"not running", `{"linux":{"cgroupsPath":"/gone"}}`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := testSource(t, "/plain/x", "/runtime/x/y", "/docker/"+ctrID+"/init.scope")
			pid := 0
			if tt.proc != "" {
				pid = 7
				if err := os.MkdirAll(s.cfg.ProcRoot+"/7", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(s.cfg.ProcRoot+"/7/cgroup", []byte(tt.proc), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c, ok := s.identify(t.Context(), plain(tt.spec), pid)
			if ok != (tt.want != "") || ok && (c.Cgroup != tt.want || c.Name != ctrID || c.Image != "img") {
				t.Errorf("got %+v, %v; want cgroup %q", c, ok, tt.want)
			}
		})
	}
}

func TestIdentityErrors(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]record{
		"no spec":     criRecord("", ctrMeta),
		"broken spec": criRecord("{", ctrMeta),
		"broken meta": criRecord(ctrSpec, `{"Metadata":3}`),
	} {
		if _, err := r.identity(); err == nil || !strings.Contains(err.Error(), ctrID) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := podRecord("nonsense").pod(); err == nil || !strings.Contains(err.Error(), podID) {
		t.Errorf("pod: error %v", err)
	}
}

// FuzzIdentity feeds what is stored with a container: an image's author and a
// pod's author write into it.
func FuzzIdentity(f *testing.F) {
	f.Add(ctrSpec, ctrMeta)
	f.Add(`{"linux":{"cgroupsPath":"../.."}}`, `{}`)
	f.Fuzz(func(t *testing.T, spec, meta string) {
		c, err := criRecord(spec, meta).identity()
		if err == nil && (c.ID != ctrID || c.Name == "" || c.Image == "") {
			t.Errorf("half an identity without an error: %+v", c)
		}
		if strings.Contains(c.Cgroup+"/", "/../") {
			t.Errorf("cgroup %q leaves the hierarchy", c.Cgroup)
		}
		if p, err := podRecord(meta).pod(); err == nil && p.ID != podID {
			t.Errorf("pod without its id: %+v", p)
		}
	})
}
