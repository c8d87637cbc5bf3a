"""A registry of one image, `zeros/layer:v1`, whose layer is bytes of zero that are made while they are sent.

`zeros.py PORT SIZE SHA256-OF-SO-MANY-ZEROS`, by bench/run.py."""
import hashlib, json, re, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = memoryview(bytes(1 << 20))
OCI = "application/vnd.oci.image."


def documents(size, digest):
    """Path to (type, body) of everything but the layer."""
    layer = {"mediaType": OCI + "layer.v1.tar", "digest": f"sha256:{digest}", "size": size}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode()
    name = lambda body: "sha256:" + hashlib.sha256(body).hexdigest()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "layers": [layer],
                           "config": {"mediaType": OCI + "config.v1+json", "digest": name(config), "size": len(config)}}).encode()
    base = "/v2/zeros/layer/"
    top = (OCI + "manifest.v1+json", manifest)
    return {"/v2/": ("application/json", b"{}"), f"{base}blobs/{name(config)}": ("application/octet-stream", config),
            f"{base}manifests/v1": top, f"{base}manifests/{name(manifest)}": top}


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    known, layer, size = {}, "", 0

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        if path == self.layer:
            self.send_layer(body)
        elif path in self.known:
            kind, data = self.known[path]
            self.head(200, len(data), {"Content-Type": kind, "Docker-Content-Digest": "sha256:" + hashlib.sha256(data).hexdigest()})
            if body:
                self.wfile.write(data)
        else:
            self.head(404, 0, {})

    def send_layer(self, body):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2] or self.size - 1), self.size - 1)) if wanted else (0, self.size - 1)
        more = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if wanted:
            more["Content-Range"] = f"bytes {first}-{last}/{self.size}"
        left = last - first + 1
        self.head(206 if wanted else 200, left, more)
        while body and left > 0:
            self.wfile.write(BLOCK[:left])
            left -= len(BLOCK)

    def head(self, status, length, more):
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def handle(self):
        try:
            super().handle()
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    size, digest = int(sys.argv[2]), sys.argv[3]
    Registry.known, Registry.layer, Registry.size = documents(size, digest), f"/v2/zeros/layer/blobs/sha256:{digest}", size
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry)
    server.daemon_threads = True
    server.serve_forever()
