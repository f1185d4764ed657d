package cri_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/cri"
)

const (
	id1 = "2f0b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809"
	id2 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	uid = "0c1d2e3f-4a5b-6c7d-8e9f-a0b1c2d3e4f5"
	uiU = "0c1d2e3f_4a5b_6c7d_8e9f_a0b1c2d3e4f5"
)

func TestParsePlace(t *testing.T) {
	t.Parallel()
	slice := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uiU + ".slice"
	tests := []struct {
		path string
		want cri.Place
	}{
		{"/kubepods/burstable/pod" + uid + "/" + id1, cri.Place{QoS: cri.Burstable, PodUID: uid,
			PodCgroup: "/kubepods/burstable/pod" + uid, ContainerID: id1, Cgroup: "/kubepods/burstable/pod" + uid + "/" + id1}},
		{"/kubepods/besteffort/pod" + uid + "/" + id1, cri.Place{QoS: cri.BestEffort, PodUID: uid,
			PodCgroup: "/kubepods/besteffort/pod" + uid, ContainerID: id1, Cgroup: "/kubepods/besteffort/pod" + uid + "/" + id1}},
		{"/kubepods/pod" + uid + "/" + id1, cri.Place{QoS: cri.Guaranteed, PodUID: uid,
			PodCgroup: "/kubepods/pod" + uid, ContainerID: id1, Cgroup: "/kubepods/pod" + uid + "/" + id1}},
		{slice + "/cri-containerd-" + id1 + ".scope", cri.Place{QoS: cri.Burstable, PodUID: uid,
			PodCgroup: slice, ContainerID: id1, Cgroup: slice + "/cri-containerd-" + id1 + ".scope"}},
		{slice + "/crio-" + id1 + ".scope", cri.Place{QoS: cri.Burstable, PodUID: uid,
			PodCgroup: slice, ContainerID: id1, Cgroup: slice + "/crio-" + id1 + ".scope"}},
		{slice + "/crio-conmon-" + id1 + ".scope", cri.Place{QoS: cri.Burstable, PodUID: uid, PodCgroup: slice}},
		{slice, cri.Place{QoS: cri.Burstable, PodUID: uid, PodCgroup: slice}},
		{"/kubepods.slice/kubepods-pod" + uiU + ".slice/cri-containerd-" + id1 + ".scope", cri.Place{QoS: cri.Guaranteed, PodUID: uid,
			PodCgroup: "/kubepods.slice/kubepods-pod" + uiU + ".slice", ContainerID: id1,
			Cgroup: "/kubepods.slice/kubepods-pod" + uiU + ".slice/cri-containerd-" + id1 + ".scope"}},
		{"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + uiU + ".slice", cri.Place{
			QoS: cri.BestEffort, PodUID: uid,
			PodCgroup: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + uiU + ".slice"}},
		{"/docker/" + id2 + "/kubelet/kubepods/burstable/pod" + uid + "/" + id1, cri.Place{QoS: cri.Burstable, PodUID: uid,
			PodCgroup:   "/docker/" + id2 + "/kubelet/kubepods/burstable/pod" + uid,
			ContainerID: id1, Cgroup: "/docker/" + id2 + "/kubelet/kubepods/burstable/pod" + uid + "/" + id1}},
		{"/kubepods/burstable", cri.Place{}},
		{"/kubepods/burstable/pod", cri.Place{}},
		{"/docker/" + id1, cri.Place{ContainerID: id1, Cgroup: "/docker/" + id1}},
		{"/docker/" + id1 + "/init.scope", cri.Place{ContainerID: id1, Cgroup: "/docker/" + id1}},
		{"/system.slice/docker-" + id1 + ".scope", cri.Place{ContainerID: id1, Cgroup: "/system.slice/docker-" + id1 + ".scope"}},
		{"/machine.slice/libpod-" + id1 + ".scope/container", cri.Place{ContainerID: id1, Cgroup: "/machine.slice/libpod-" + id1 + ".scope"}},
		{"/machine.slice/libpod-conmon-" + id1 + ".scope", cri.Place{}},
		{"/libpod_parent/libpod-" + id1, cri.Place{ContainerID: id1, Cgroup: "/libpod_parent/libpod-" + id1}},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope", cri.Place{ContainerID: id1,
			Cgroup: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope"}},
		{"/docker/" + strings.ToUpper(id1), cri.Place{}},
		{"/system.slice/podman.service", cri.Place{}},
		{"/podfoo/" + id1[1:], cri.Place{}},
		{"/", cri.Place{}},
		{"", cri.Place{}},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, cri.ParsePlace(tt.path)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSpecCgroup(t *testing.T) {
	t.Parallel()
	tests := []struct {
		spec, want, err string
	}{
		{"/kubepods/burstable/podX/" + id1, "/kubepods/burstable/podX/" + id1, ""},
		{"/k8s.io/../x/", "/x", ""},
		{"kubepods-burstable-pod" + uiU + ".slice:cri-containerd:" + id1,
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uiU + ".slice/cri-containerd-" + id1 + ".scope", ""},
		{"system.slice:docker:" + id1, "/system.slice/docker-" + id1 + ".scope", ""},
		{":docker:" + id1, "/system.slice/docker-" + id1 + ".scope", ""},
		{"-.slice:x:y", "/x-y.scope", ""},
		{"a.slice:ignored:a-b.slice", "/a.slice/a-b.slice", ""},
		{"a--b.slice:x:y", "", "not a slice"},
		{"a:x:y", "", "not a slice"},
		{"a/b.slice:x:y", "", "not a slice"},
		{"a.slice:x:", "", "no unit name"},
		{"a.slice:x:../../y", "", "no unit name"},
		{"relative/path", "", "neither"},
		{"", "", "neither"},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			t.Parallel()
			got, err := cri.SpecCgroup(tt.spec)
			if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %q, %v; want %q, error with %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestProcCgroup(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"v1", "12:freezer:/f\n9:memory:/m/x\n0::/u\n", "/m/x"},
		{"v1 joined", "3:cpu,memory:/both\n", "/both"},
		{"v2", "0::/u/x\n", "/u/x"},
		{"hybrid without memory", "1:name=systemd:/s\n0::/u\n", "/u"},
		{"colon in the path", "0::/a:b:c\n", "/a:b:c"},
		{"outside of the namespace", "0::/../../kubepods\n", ""},
		{"empty", "", ""},
		{"garbage", "memory\n:::\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := cri.ProcCgroup(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParsePlace(f *testing.F) {
	f.Add("/kubepods/burstable/pod" + uid + "/" + id1)
	f.Add("/kubepods.slice/kubepods-pod" + uiU + ".slice/cri-containerd-" + id1 + ".scope")
	f.Add("docker//" + id1 + "/")
	f.Fuzz(func(t *testing.T, p string) {
		at := cri.ParsePlace(p)
		if !strings.HasPrefix(p, at.Cgroup) || !strings.HasPrefix(p, at.PodCgroup) {
			t.Errorf("%+v is not on the path %q", at, p)
		}
		if (at.ContainerID == "") != (at.Cgroup == "") || (at.PodUID == "") != (at.PodCgroup == "") || (at.PodUID == "") != (at.QoS == "") {
			t.Errorf("half an identity from %q: %+v", p, at)
		}
	})
}

func FuzzSpecCgroup(f *testing.F) {
	f.Add("kubepods-burstable-podx.slice:cri-containerd:" + id1)
	f.Add("/a/../b")
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := cri.SpecCgroup(spec)
		if (p == "") == (err == nil) {
			t.Errorf("%q: value %q and error %v", spec, p, err)
		}
		if err == nil && (p[0] != '/' || strings.Contains(p+"/", "/../")) {
			t.Errorf("%q: path %q", spec, p)
		}
	})
}
