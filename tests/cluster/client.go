package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// client talks to the API server, in the few ways that the supervisor needs.
type client struct {
	server string
	http   http.Client
}

func newClient(server, pki, name string) (*client, error) {
	authority, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, name+".crt"), filepath.Join(pki, name+".key"))
	if err != nil {
		return nil, err
	}
	return &client{server: server, http: http.Client{
		Timeout: 30 * time.Second,
		// Without a proxy, whatever the environment says: the cluster is right here.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}},
	}}, nil
}

// get reads an object into v, which may be nil.
func (c *client) get(path string, v any) error { return c.do("GET", path, "", nil, v) }

// apply makes an object what a manifest, in YAML, says.
func (c *client) apply(path, manifest string) error {
	return c.do("PATCH", path+"?fieldManager=cluster&force=true", "application/apply-patch+yaml", []byte(manifest), nil)
}

// merge changes some fields of an object.
func (c *client) merge(path, patch string) error {
	return c.do("PATCH", path, "application/merge-patch+json", []byte(patch), nil)
}

func (c *client) do(method, path, kind string, body []byte, v any) error {
	request, err := http.NewRequest(method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, data)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(data, v)
}
