package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// writeImage writes an OCI archive of one layer: the static busybox under the
// names of all its commands, and nothing else.
func writeImage(path, ref string, command ...string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(name string, data []byte) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	type object = map[string]any
	blob := func(media string, data []byte) object {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		add("blobs/sha256/"+sum, data)
		return object{"mediaType": media, "digest": "sha256:" + sum, "size": len(data)}
	}
	encode := func(v any) []byte {
		data, _ := json.Marshal(v)
		return data
	}
	const oci = "application/vnd.oci.image."
	content := blob(oci+"layer.v1.tar", layer)
	config := blob(oci+"config.v1+json", encode(object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       object{"Cmd": command, "Env": []string{"PATH=/bin"}},
		"rootfs":       object{"type": "layers", "diff_ids": []any{content["digest"]}},
	}))
	manifest := blob(oci+"manifest.v1+json", encode(object{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
		"config": config, "layers": []any{content},
	}))
	manifest["annotations"] = object{"io.containerd.image.name": ref}
	add("index.json", encode(object{
		"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": []any{manifest},
	}))
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if err := w.Close(); err != nil {
		return err
	}
	// A file that is there is complete: it is not written again.
	if err := os.WriteFile(path+".new", archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	file, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer file.Close()
	if file.Section(".interp") != nil {
		return nil, errors.New(path + " needs shared libraries, which an image of it alone lacks: install busybox-static")
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	names, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", path, err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []struct {
		name string
		mode int64
	}{{"bin/", 0o755}, {"etc/", 0o755}, {"tmp/", 0o1777}} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir.name, Mode: dir.mode})
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary))})
	w.Write(binary)
	for _, name := range strings.Fields(string(names)) {
		if name != "busybox" {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"})
		}
	}
	return layer.Bytes(), w.Close()
}
