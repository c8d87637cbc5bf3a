#!/usr/bin/env python3
"""Compares pulls side by side: ours and skopeo (alone, and four at a time), round by round.

    bench/run.py pull [--corpus full|small] [--rounds N]    a near registry, plain HTTP and TLS
    bench/run.py far  [--rounds N]                          40 ms away, 40 MB/s per connection
    bench/run.py noop [--rounds N]                          nothing to do: the same pull again

Every run starts from an empty folder. The first round is thrown away, rows are medians. Ours is verified and
synced when it ends; for the others the time of a `sync` afterwards is shown beside. Leaves target/bench/NAME.json.
"""
import argparse, hashlib, json, os, shutil, socket, statistics, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor

import corpus

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.join(os.path.dirname(HERE), "target")
TICK = os.sysconf("SC_CLK_TCK")
FAR = {"delay_ms": 20, "rate_mb": 40}  # one way; a round trip is 40 ms


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen")


def registry(work, data, tls):
    port = free_port()
    http = {"addr": f"127.0.0.1:{port}"}
    if tls:
        cert, key = f"{work}/tls.crt", f"{work}/tls.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
        http["tls"] = {"certificate": cert, "key": key}
    config = {"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "storage": {"filesystem": {"rootdirectory": data, "maxthreads": 100}}, "http": http}
    path = f"{work}/registry-{port}.json"  # JSON is YAML
    with open(path, "w") as file:
        json.dump(config, file)
    process = subprocess.Popen(["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_port(port, process)
    return process, port


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def lo_bytes():
    with open("/proc/net/dev") as file:
        return next(int(line.split(":")[1].split()[0]) for line in file if line.strip().startswith("lo:"))


def measured(argv, log):
    """Runs one command: user and system seconds, peak resident MiB, exit status."""
    process, peak, over = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL), [0], threading.Event()

    def watch():
        while not over.wait(0.02):
            try:
                with open(f"/proc/{process.pid}/status") as file:
                    peak[0] = max([peak[0]] + [int(line.split()[1]) for line in file if line.startswith("VmHWM")])
            except OSError:
                return
    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    over.set()
    watcher.join()
    return usage.ru_utime + usage.ru_stime, peak[0] / 1024, process.returncode


def commands(name, known, port, tls, out, ours, connections):
    host = f"127.0.0.1:{port}"
    references = [f"{host}/{image['repository']}:{image['tag']}" for image in known["images"]]
    if name.startswith("ours"):
        images = [word for reference in references for word in ("--image", reference)]
        more = ["--connections", str(connections)] if connections else []
        return [[ours, "pull", *images, "--volume", f"{out}/store", "--platform", "linux/amd64", "--insecure" if tls else "--plain-http", host, *more]], 1
    copy = ["skopeo", "--insecure-policy", "--override-os", "linux", "--override-arch", "amd64", "copy", "-q", "--src-tls-verify=false"]
    if name == "skopeo x4":
        return [[*copy, "--dest-shared-blob-dir", f"{out}/blobs", f"docker://{reference}", f"oci:{out}/{n}:v1"] for n, reference in enumerate(references)], 4
    return [[*copy, f"docker://{reference}", f"oci:{out}/layout:{n}"] for n, reference in enumerate(references)], 1


def verify(known, folder):
    """Every blob of ours is what its name says."""
    for digest in {d for image in known["images"] for d in image["blobs"]}:
        with open(f"{folder}/blobs/{digest.replace(':', '/')}", "rb") as file:
            if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() != digest:
                sys.exit(f"{digest}: wrong bytes")


def disk_rate(work):
    """Raw writes past the page cache, in MB/s."""
    path = f"{work}/disk"
    done = subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4M", "count=256", "oflag=direct", "conv=fsync"], capture_output=True, text=True)
    begun = time.monotonic()
    done = subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4M", "count=256", "oflag=direct", "conv=fsync,notrunc"], capture_output=True, text=True)
    rate = (256 << 22) / 1e6 / (time.monotonic() - begun) if done.returncode == 0 else 0
    os.unlink(path)
    return round(rate)


class Case:
    """One registry and the contestants against it."""

    def __init__(self, name, known, port, tls, server, args, work):
        self.__dict__.update(locals())
        self.runs = {}

    def round(self, contestants, noop=False):
        for name in contestants:
            out = f"{self.work}/out"
            shutil.rmtree(out, ignore_errors=True)
            os.makedirs(out)
            subprocess.run(["sync"])
            lines, at_once = commands(name, self.known, self.port, self.tls, out, self.args.ours, self.args.connections)
            with open(f"{self.work}/log", "ab") as log:
                if noop:
                    measured(lines[0], log)
                before, registry_before, begun = lo_bytes(), cpu_of(self.server.pid), time.monotonic()
                with ThreadPoolExecutor(at_once) as pool:
                    results = list(pool.map(lambda line: measured(line, log), lines))
            wall = time.monotonic() - begun
            received, registry_cpu = lo_bytes() - before, cpu_of(self.server.pid) - registry_before
            begun = time.monotonic()
            subprocess.run(["sync"])
            sync = time.monotonic() - begun
            if any(status for _, _, status in results):
                sys.exit(f"{name} failed, see {self.work}/log")
            if name.startswith("ours"):
                verify(self.known, f"{out}/store")
            row = dict(wall=wall, sync=sync, cpu=sum(r[0] for r in results), rss=max(r[1] for r in results), lo=received, registry_cpu=registry_cpu)
            self.runs.setdefault(name, []).append(row)
            print(f"  {self.name:5} {name:10} {wall:6.2f} s", file=sys.stderr, flush=True)

    def rows(self):
        for name, runs in self.runs.items():
            kept = runs[1:] or runs
            row = {key: statistics.median(run[key] for run in kept) for key in kept[0]}
            yield dict(case=self.name, contestant=name, unique=self.known["unique"], rounds=len(kept), walls=[round(r["wall"], 3) for r in kept], **row)


def show(rows):
    print(f"{'case':6}{'contestant':12}{'wall s':>8}{'MB/s':>7}{'+sync':>7}{'cpu s':>7}{'s/GB':>6}{'reg s':>7}{'RSS MiB':>9}{'bytes/unique':>14}")
    for r in rows:
        print(f"{r['case']:6}{r['contestant']:12}{r['wall']:8.2f}{r['unique'] / 1e6 / r['wall']:7.0f}{r['sync']:7.2f}{r['cpu']:7.2f}{r['cpu'] / r['unique'] * 1e9:6.2f}"
              f"{r['registry_cpu']:7.2f}{r['rss']:9.0f}{r['lo'] / r['unique']:14.3f}")


def goals(which, rows):
    by = {(r["case"], r["contestant"]): r for r in rows}
    found = []

    def goal(name, wanted, value, below=False):
        found.append(dict(name=name, goal=wanted, measured=round(value, 3), met=value <= wanted if below else value >= wanted))
    for (case, name), ours in by.items():
        if not name.startswith("ours"):
            continue
        alone, four = by.get((case, "skopeo")), by.get((case, "skopeo x4"))
        factor = {"http": (2.5, 1.6), "tls": (2.8, 1.7), "far": (6, None)}.get(case)
        if alone and factor:
            goal(f"{case}: times faster than skopeo", factor[0], alone["wall"] / ours["wall"])
        if four and factor and factor[1]:
            goal(f"{case}: times faster than four skopeos with their sync", factor[1], (four["wall"] + four["sync"]) / ours["wall"])
        if case in ("http", "tls"):
            goal(f"{case}: CPU seconds per GB", 1.1 if case == "http" else 1.25, ours["cpu"] / ours["unique"] * 1e9, below=True)
            goal(f"{case}: peak RSS, MiB", 64, ours["rss"], below=True)
            goal(f"{case}: bytes on the wire over unique bytes", 1.01, ours["lo"] / ours["unique"], below=True)
        if case == "far":
            goal("far: share of connections x rate", 0.6, ours["unique"] / 1e6 / ours["wall"] / (ours["connections"] * FAR["rate_mb"]))
        if case == "noop":
            goal("noop: seconds", 0.10, ours["wall"], below=True)
    return found


def version(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "absent"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["pull", "far", "noop"])
    parser.add_argument("--corpus", choices=list(corpus.SHAPES))
    parser.add_argument("--rounds", type=int, default=4, help="the first is thrown away")
    parser.add_argument("--ours", required=True, help="the binary")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=BINARY", help="another build of ours, side by side")
    parser.add_argument("--far-proxy", help="the program of bench/far.rs")
    parser.add_argument("--connections", type=int, help="connections of ours; far: 16")
    parser.add_argument("--only", help="http or tls")
    parser.add_argument("--no-peers", action="store_true", help="ours alone, to steer by")
    parser.add_argument("--work", default=f"{TARGET}/bench", help="where the corpus is kept and the pulls go")
    args = parser.parse_args()
    shape = args.corpus or ("far" if args.which == "far" else "full")
    work = os.path.abspath(args.work)
    os.makedirs(work, exist_ok=True)
    known = corpus.make(f"{work}/corpus-{shape}", shape)
    print(f"{len(known['images'])} images, {known['unique'] / 1e6:.0f} MB unique, {known['naive'] / 1e6:.0f} MB if nothing were shared", file=sys.stderr)
    started, cases = [], []
    try:
        for tls in [False, True] if args.which == "pull" else [False]:
            if args.only and args.only != ("tls" if tls else "http"):
                continue
            server, port = registry(work, f"{work}/corpus-{shape}", tls)
            started.append(server)
            if args.which == "far":
                args.connections = args.connections or 16
                near, port = port, free_port()
                proxy = subprocess.Popen([args.far_proxy, f"127.0.0.1:{port}", f"127.0.0.1:{near}", str(FAR["delay_ms"]), str(FAR["rate_mb"])])
                started.append(proxy)
                wait_port(port, proxy)
            name = args.which if args.which != "pull" else ("tls" if tls else "http")
            cases.append(Case(name, known, port, tls, server, args, work))
        disk = [disk_rate(work)]
        contestants = ["ours"] + ([] if args.no_peers or args.which == "noop" else ["skopeo", "skopeo x4"])
        others = dict(word.split("=", 1) for word in args.against)
        for _ in range(args.rounds):
            for case in cases:
                case.round(contestants, args.which == "noop")
                for name, binary in others.items():
                    mine, args.ours = args.ours, binary
                    case.round([f"ours {name}"], args.which == "noop")
                    args.ours = mine
        disk.append(disk_rate(work))
    finally:
        for process in started:
            process.terminate()
            process.wait()
        shutil.rmtree(f"{work}/out", ignore_errors=True)
    rows = [dict(row, connections=args.connections or 8) for case in cases for row in case.rows()]
    report = dict(rows=rows, disk_mb_per_s=disk, goals=goals(args.which, rows), flags=sys.argv[1:], cores=os.cpu_count(),
                  versions=dict(ours=version([args.ours, "--version"]), skopeo=version(["skopeo", "--version"]), registry=version(["docker-registry", "--version"])))
    show(rows)
    print(f"raw disk, before and after: {disk[0]} and {disk[1]} MB/s")
    for g in report["goals"]:
        print(f"{'met   ' if g['met'] else 'missed'} {g['name']}: {g['measured']} (goal {g['goal']})")
    with open(f"{work}/{args.which}.json", "w") as file:
        json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
