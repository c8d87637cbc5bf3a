"""Who pulls: ours, other builds of ours, and the tools people use today, each with its best settings."""
import concurrent.futures, hashlib, json, os, re, shutil, subprocess, sys, tempfile, time
from dataclasses import dataclass
from typing import Callable

import measure

HERE = os.path.dirname(os.path.abspath(__file__))
CHUNK = 8 << 20  # of containerd's concurrent fetch


@dataclass
class Target:
    """Where to pull what from and where it goes."""
    host: str
    tls: bool
    references: list
    out: str
    connections: int


@dataclass
class Contestant:
    name: str
    family: str  # goals compare with a family, whatever its version
    binary: str
    lines: Callable  # of a Target: the command lines
    at_once: int = 1
    note: str = ""
    older: bool = False  # there is a newer one of it: left out where time is short
    daemon: Callable = None  # of a Target and a log: a context manager around one run, which yields processes

    def version(self):
        return version(self.binary)


def version(binary):
    for words in (["--version"], ["version"], ["-version"]):
        try:
            done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=20)
        except OSError:
            return "absent"
        found = re.search(r"\d+\.\d+\.\d+(-[\w.]+)?", done.stdout)
        if done.returncode == 0 and found:
            return found[0]
    return "unknown"


def ours(binary, name="ours"):
    return Contestant(name, "ours", binary, lambda t: [pull(binary, t, t.references)])


def pull(binary, target, references, *more):
    """Our command line."""
    images = [word for reference in references for word in ("--image", reference)]
    access = ["--insecure" if target.tls else "--plain-http", target.host]
    return [binary, "pull", *images, "--volume", f"{target.out}/store", "--platform", "linux/amd64", *access, "--connections", str(target.connections), *more]


def skopeo(binary, name, many):
    def lines(t):
        copy = [binary, "--insecure-policy", "--override-os", "linux", "--override-arch", "amd64", "copy", "-q", "--src-tls-verify=false"]
        if many:
            return [[*copy, "--dest-shared-blob-dir", f"{t.out}/blobs", f"docker://{r}", f"oci:{t.out}/{n}:v1"] for n, r in enumerate(t.references)]
        return [[*copy, f"docker://{r}", f"oci:{t.out}/layout:{n}"] for n, r in enumerate(t.references)]
    return Contestant(f"{name} x4" if many else name, "skopeo x4" if many else "skopeo", binary, lines, 4 if many else 1)


def image_copy(binary, name, many):
    """bench/peers/main.go: skopeo's library with skopeo's defaults."""
    def lines(t):
        if many:
            return [[binary, "-shared", f"{t.out}/blobs", r, f"{t.out}/{n}:v1"] for n, r in enumerate(t.references)]
        return [[binary, r, f"{t.out}/layout:{n}"] for n, r in enumerate(t.references)]
    return Contestant(f"{name} x4" if many else name, "skopeo x4" if many else "skopeo", binary, lines, 4 if many else 1, "skopeo's library")


def crane(binary, name):
    return Contestant(name, "crane", binary, lambda t: [[binary, "pull", "--insecure", "--platform", "linux/amd64", "--format", "oci", *t.references, f"{t.out}/layout"]])


def regctl(binary, name):
    def lines(t):
        config = f"{t.out}/regctl.json"
        with open(config, "w") as file:
            json.dump({"hosts": {t.host: {"tls": "insecure" if t.tls else "disabled", "hostname": t.host, "reqConcurrent": t.connections}}}, file)
        return [["env", f"REGCTL_CONFIG={config}", binary, "image", "copy", "--platform", "linux/amd64", r, f"ocidir://{t.out}/layout:{n}"] for n, r in enumerate(t.references)]
    return Contestant(name, "regctl", binary, lines)


def oras(binary, name):
    def lines(t):
        access = "--from-insecure" if t.tls else "--from-plain-http"
        copy = [binary, "cp", access, "--no-tty", "--concurrency", str(t.connections), "--platform", "linux/amd64", "--to-oci-layout"]
        return [[*copy, r, f"{t.out}/layout:{n}"] for n, r in enumerate(t.references)]
    return Contestant(name, "oras", binary, lines)


class Containerd:
    """A containerd of its own for one run: its root under the target, its sockets where their paths are short."""

    def __init__(self, binary, ctr, chunks, target, log):
        self.short = tempfile.mkdtemp(prefix="imagecache-bench-")
        socket, config = f"{self.short}/c.sock", f"{self.short}/config.toml"
        off = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.nri.v1.nri"]
        fetch = f"max_concurrent_downloads = {target.connections}\n" + (f"concurrent_layer_fetch_buffer = {CHUNK}\n" if chunks else "")
        with open(config, "w") as file:
            file.write(f'version = 3\nroot = "{target.out}/root"\nstate = "{self.short}/state"\ndisabled_plugins = {json.dumps(off)}\n'
                       f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
                       f'[plugins."io.containerd.internal.v1.opt"]\npath = "{target.out}/opt"\n'
                       f'[plugins."io.containerd.transfer.v1.local"]\n{fetch}')
        self.process = measure.start([binary, "-c", config, "-l", "error"], stdout=log, stderr=log)
        for _ in range(200):
            if self.process.poll() is not None:
                break
            if subprocess.run([ctr, "-a", socket, "version"], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        self.__exit__()
        sys.exit("containerd does not start, see the log")

    def __enter__(self):
        return [self.process]

    def __exit__(self, *_):
        measure.stop(self.process)
        shutil.rmtree(self.short, ignore_errors=True)


def ctr(binary, daemon, name, how):
    """`fetch` goes through the content store, `pull` through the transfer service, `chunks` the same in ranges."""
    running = []  # the containerd of the run under way

    def start(target, log):
        running[:] = [Containerd(daemon, binary, how == "chunks", target, log)]
        return running[0]

    def lines(t):
        tool, access = [binary, "-a", f"{running[0].short}/c.sock"], ["--plain-http"]
        if t.tls:
            # Through the transfer service a certificate is left unchecked by configuration only.
            folder = f"{running[0].short}/certs.d/{t.host}"
            os.makedirs(folder)
            with open(f"{folder}/hosts.toml", "w") as file:
                file.write(f'server = "https://{t.host}"\n[host."https://{t.host}"]\nskip_verify = true\n')
            access = ["--hosts-dir", os.path.dirname(folder)]
        command = ["content", "fetch"] if how == "fetch" else ["images", "pull"]
        return [[*tool, *command, *access, "--platform", "linux/amd64", r] for r in t.references]
    note = "no unpack" if how == "fetch" else "unpacks"
    label = {"fetch": "fetch", "pull": "pull", "chunks": "pull, chunks"}[how]
    return Contestant(f"{name} {label}", f"ctr {how}", binary, lines, note=note, daemon=start)


def built():
    """The folder that bench/peers.sh makes, built if need be."""
    try:
        done = subprocess.run([f"{HERE}/peers.sh"], stdout=subprocess.PIPE, text=True)
    except KeyboardInterrupt:
        sys.exit(130)
    if done.returncode:
        sys.exit("the peers are not there: see above, or use --no-peers")
    return done.stdout.split()[-1]


def peers(more_skopeos, kinds):
    """Everybody who can be had, of the kinds that a case asks for. A newer skopeo makes its library alone needless."""
    folder = built()
    at = lambda name: next((p for p in (f"{folder}/{name}", shutil.which(name)) if p and os.path.exists(p)), None)
    found = []
    for many in (False, True):
        newer = [skopeo(binary, f"skopeo {label}", many) for label, binary in more_skopeos]
        if not newer and os.path.exists(f"{folder}/image-copy"):
            binary = f"{folder}/image-copy"
            newer = [image_copy(binary, f"c/image {version(binary)}", many)]
        if shutil.which("skopeo"):
            found.append(skopeo(shutil.which("skopeo"), f"skopeo {version('skopeo')}", many))
            found[-1].older = bool(newer)
        found += newer
    for make in (crane, regctl, oras):
        binary = at(make.__name__)
        if binary:
            found.append(make(binary, f"{make.__name__} {version(binary)}"))
    daemon, tool = f"{folder}/containerd", f"{folder}/ctr"
    if os.path.exists(daemon) and os.path.exists(tool) and os.geteuid() == 0:
        found += [ctr(tool, daemon, f"ctr {version(tool)}", how) for how in ("fetch", "pull", "chunks")]
    return [one for one in found if one.family in kinds]


def left_out():
    """What bench/peers.sh could not build, or what cannot run here, with the reasons."""
    found = [] if os.geteuid() == 0 else ["containerd: needs root"]
    path = f"{built()}/left-out"
    if os.path.exists(path):
        with open(path) as file:
            found += [f"{line.split(':')[0]}: not to be had from the Go module proxy that was asked" for line in file]
    return found


def check(known, out, whole):
    """Every blob is there under its digest, wherever the contestant keeps blobs; `whole` hashes them again too."""
    wanted = {digest.split(":")[1]: size for image in known["images"] for digest, size in image["blobs"].items()}
    found = {}
    for folder, _, names in os.walk(out):
        if os.path.basename(folder) == "sha256":
            found.update({name: os.path.join(folder, name) for name in names if name in wanted})
    missing = [name for name, size in wanted.items() if name not in found or os.path.getsize(found[name]) != size]
    if missing:
        return f"{len(missing)} of {len(wanted)} blobs are missing or cut off, such as sha256:{missing[0]}"

    def right(item):
        with open(item[1], "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == item[0]
    if whole:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for item, good in zip(found.items(), pool.map(right, found.items())):
                if not good:
                    return f"sha256:{item[0]} holds other bytes"
    return None
