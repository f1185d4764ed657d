package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The images have one file, memleak, and differ in a label, so that each has a
// digest of its own: the CRI reports an image by any one of its names.
const (
	pauseImage = "test.local/pause:1"
	leakImage  = "test.local/leak:1"
	otherImage = "test.local/other:1"
)

// importImages writes an OCI layout as a tar and imports it.
func (n *node) importImages() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	program, err := os.ReadFile(filepath.Join(n.bin, "memleak"))
	if err != nil {
		n.t.Fatal(err)
	}
	c := n.client()
	for _, name := range []string{pauseImage, leakImage, otherImage} {
		images, err := c.Import(ctx, bytes.NewReader(imageTar(program, name)))
		if err != nil {
			n.t.Fatalf("import %s: %v", name, err)
		}
		for _, img := range images {
			if err := containerd.NewImage(c, img).Unpack(ctx, snapshotter()); err != nil {
				n.t.Fatalf("unpack %s: %v", name, err)
			}
		}
	}
	// The CRI keeps its own index of images, which an import's event refreshes.
	eventually(n.t, 30*time.Second, "the CRI knows the images", func() error {
		for _, name := range []string{pauseImage, leakImage, otherImage} {
			if err := n.hasImage(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// imageTar is an image with one layer that holds the program as /memleak.
func imageTar(program []byte, name string) []byte {
	var layer bytes.Buffer
	lw := tar.NewWriter(&layer)
	for _, dir := range []string{"proc/", "sys/", "dev/", "etc/", "tmp/"} {
		must(lw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}))
	}
	addFile(lw, "memleak", 0o755, program)
	must(lw.Close())

	config := marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config:   ocispec.ImageConfig{Entrypoint: []string{"/memleak"}, Cmd: []string{"--ceiling", "64KiB"}, Labels: map[string]string{"name": name}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer.Bytes())}},
	})
	manifest := marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, layer.Bytes())},
	})
	top := descriptor(ocispec.MediaTypeImageManifest, manifest)
	top.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name}
	index := marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}})

	var out bytes.Buffer
	w := tar.NewWriter(&out)
	addFile(w, ocispec.ImageLayoutFile, 0o644, marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}))
	addFile(w, "index.json", 0o644, index)
	for _, blob := range [][]byte{layer.Bytes(), config, manifest} {
		addFile(w, fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(blob)), 0o644, blob)
	}
	must(w.Close())
	return out.Bytes()
}

func descriptor(mediaType string, blob []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}

func addFile(w *tar.Writer, name string, mode int64, b []byte) {
	must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(b))}))
	_, err := w.Write(b)
	must(err)
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// must is for what cannot fail: writes to memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
