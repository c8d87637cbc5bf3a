"""What is pulled from: docker-registry over HTTP or TLS, the far link before it, and a registry of zeros."""
import hashlib, json, os, re, socket, subprocess, sys, time

import measure

HERE = os.path.dirname(os.path.abspath(__file__))
FAR = {"one_way_ms": 20, "mb_per_second": 40}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process):
    for _ in range(400):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode} before it listened")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen on port {port}")


class Server:
    """One registry: `host` as references name it, `process` whose CPU counts, and whether it speaks TLS."""

    def __init__(self, process, port, tls=False, cert=None, log=None, files=()):
        self.process, self.host, self.tls, self.cert, self.log, self.files = process, f"127.0.0.1:{port}", tls, cert, log, files
        self.wire = 1  # how often a byte crosses the loopback on its way
        self.others = []

    def cpu(self):
        return measure.cpu_of(self.process.pid)

    def requests(self, since=0):
        """The methods in the access log from a position on, and the position after it."""
        with open(self.log) as file:
            file.seek(since)
            methods = re.findall(r'"([A-Z]+) /v2/[^"]* HTTP/', file.read())
            return methods, file.tell()

    def stop(self):
        for process in [self.process, *self.others]:
            measure.stop(process)
        for path in self.files:
            if os.path.exists(path):
                os.unlink(path)


def certificate(work):
    """A self-signed P-256 certificate that is no authority, so that it can be trusted as it is."""
    cert, key = f"{work}/tls.crt", f"{work}/tls.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-keyout", key, "-out", cert,
                    "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
    return cert, key


def registry(work, data, tls=False, log=False):
    """docker-registry over a folder; its files stay in the page cache on purpose."""
    port = free_port()
    http, files = {"addr": f"127.0.0.1:{port}"}, [f"{work}/registry-{port}.json"]
    if tls:
        cert, key = certificate(work)
        http["tls"] = {"certificate": cert, "key": key}
        files += [cert, key]
    config = {"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": not log}}, "storage": {"filesystem": {"rootdirectory": data, "maxthreads": 100}}, "http": http}
    with open(files[0], "w") as file:
        json.dump(config, file)  # JSON is YAML
    access = f"{work}/access-{port}.log" if log else os.devnull
    with open(access, "w") as out:
        process = measure.start(["docker-registry", "serve", files[0]], stdout=out, stderr=subprocess.DEVNULL)
    wait_port(port, process)
    return Server(process, port, tls, files[1] if tls else None, access if log else None, files + ([access] if log else []))


def far(server, program):
    """The same registry, 40 ms away and 40 MB/s per connection."""
    port = free_port()
    proxy = measure.start([program, f"127.0.0.1:{port}", server.host, str(FAR["one_way_ms"]), str(FAR["mb_per_second"])])
    wait_port(port, proxy)
    server.host, server.wire = f"127.0.0.1:{port}", 2
    server.others.append(proxy)
    return server


def zeros(work, size):
    """A registry with one image of one layer: so many bytes of zero, which are on no disk."""
    path = f"{work}/zeros-{size}.json"
    if not os.path.exists(path):
        digest, block = hashlib.sha256(), bytes(1 << 20)
        for _ in range(size >> 20):
            digest.update(block)
        with open(path + ".tmp", "w") as file:
            json.dump(digest.hexdigest(), file)
        os.rename(path + ".tmp", path)
    with open(path) as file:
        digest = json.load(file)
    port = free_port()
    process = measure.start([sys.executable, f"{HERE}/zeros.py", str(port), str(size), digest])
    wait_port(port, process)
    return Server(process, port)
