package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki makes every key and certificate of a cluster that lives for hours: one
// authority signs servers and clients alike.
type pki struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// openPKI takes up the authority in a folder, or makes it.
func openPKI(dir string) (*pki, error) {
	p := &pki{dir: dir}
	if cert, err := p.read("ca.crt"); err == nil {
		key, err := p.read("ca.key")
		if err != nil {
			return nil, err
		}
		if p.key, err = x509.ParseECPrivateKey(key); err != nil {
			return nil, fmt.Errorf("%s: %w", p.path("ca.key"), err)
		}
		if p.cert, err = x509.ParseCertificate(cert); err != nil {
			return nil, fmt.Errorf("%s: %w", p.path("ca.crt"), err)
		}
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.tokenKey(); err != nil {
		return nil, err
	}
	var err error
	if p.key, err = p.newKey("ca"); err != nil {
		return nil, err
	}
	ca := template("cluster-ca")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage |= x509.KeyUsageCertSign
	ca.ExtKeyUsage = nil
	p.cert, err = p.sign("ca", ca, ca, &p.key.PublicKey)
	return p, err
}

func template(cn string, groups ...string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn, Organization: groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) read(name string) ([]byte, error) {
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM: remove the cluster's folder", p.path(name))
	}
	return block.Bytes, nil
}

func (p *pki) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, p.write(name+".key", "EC PRIVATE KEY", der)
}

func (p *pki) write(name, kind string, der []byte) error {
	return os.WriteFile(p.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (p *pki) sign(name string, cert, parent *x509.Certificate, pub *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, pub, p.key)
	if err != nil {
		return nil, err
	}
	if err := p.write(name+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// tokenKey makes the pair that signs and checks service account tokens.
func (p *pki) tokenKey() error {
	key, err := p.newKey("sa")
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return p.write("sa.pub", "PUBLIC KEY", der)
}

func (p *pki) server(name, cn string, groups, dns []string, ips ...string) error {
	cert := template(cn, groups...)
	cert.DNSNames = dns
	for _, ip := range ips {
		cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(ip))
	}
	key, err := p.newKey(name)
	if err != nil {
		return err
	}
	_, err = p.sign(name, cert, p.cert, &key.PublicKey)
	return err
}

// client makes a client certificate and, beside it, the kubeconfig that uses it.
func (p *pki) client(name, server, cn string, groups ...string) error {
	if err := p.server(name, cn, groups, nil); err != nil {
		return err
	}
	var errs []error
	encode := func(file string) string {
		data, err := os.ReadFile(p.path(file))
		errs = append(errs, err)
		return base64.StdEncoding.EncodeToString(data)
	}
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: cluster
contexts:
- name: cluster
  context: {cluster: cluster, user: %[1]s}
clusters:
- name: cluster
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`, name, server, encode("ca.crt"), encode(name+".crt"), encode(name+".key"))
	return errors.Join(append(errs, os.WriteFile(p.path(name+".kubeconfig"), []byte(config), 0o600))...)
}
