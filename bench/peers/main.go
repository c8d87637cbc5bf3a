// Copies images into an OCI layout with the library that skopeo is made of, as `skopeo copy` does with its defaults.
// It stands in for a newer skopeo where only Debian's can be had, and is named after the library, never skopeo.
//
//	image-copy [-shared DIR] IMAGE LAYOUT:TAG
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
	"go.podman.io/image/v5/version"
)

func run() error {
	shared := flag.String("shared", "", "folder of blobs that several layouts share")
	shown := flag.Bool("version", false, "print the library's version")
	flag.Parse()
	if *shown {
		fmt.Println("containers/image", version.Version)
		return nil
	}
	if flag.NArg() != 2 {
		return fmt.Errorf("image-copy [-shared DIR] IMAGE LAYOUT:TAG")
	}
	from, err := docker.ParseReference("//" + flag.Arg(0))
	if err != nil {
		return err
	}
	to, err := layout.ParseReference(flag.Arg(1))
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	defer policy.Destroy()
	source := &types.SystemContext{
		OSChoice: "linux", ArchitectureChoice: "amd64",
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	}
	_, err = copy.Image(context.Background(), policy, to, from, &copy.Options{
		SourceCtx:      source,
		DestinationCtx: &types.SystemContext{OCISharedBlobDirPath: *shared},
	})
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "image-copy:", err)
		os.Exit(1)
	}
}
