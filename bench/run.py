#!/usr/bin/env python3
"""Compares imagecache with the tools people use today, side by side, round by round.

    pull      a near registry over HTTP and TLS; again in memory if the disk is slow
    far       40 ms away, 40 MB/s per connection, 16 connections
    overlap   four processes that pull overlapping images into one store at once, near and far
    noop      nothing to do: requests and time of a pull of what is there already
    rss       peak memory of one 10 GiB layer, with 8 and with 32 connections
    verify    every stored byte hashed again, from memory and from the disk

Contestants take turns inside a round, the first round is thrown away, rows are medians. Every run starts from an
empty folder. Ours is verified and durable when it ends; for all, the time of a `sync` afterwards is shown beside.
What each wrote is hashed again. Leaves target/bench/NAME.json, and with --publish the tables and charts of
docs/performance.md."""
import argparse, os, shutil, signal, subprocess, sys

sys.dont_write_bytecode = True  # nothing is left beside the sources
import cases, corpus, goals, measure, peers, report, servers, special

TARGET = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target")
NEAR = {"skopeo", "skopeo x4", "crane", "regctl", "oras", "ctr fetch", "ctr pull", "ctr chunks"}
IN_MEMORY = {"ours", "skopeo", "skopeo x4", "crane"}  # the ones that goals are about
BLOB_CACHE = "/var/lib/containers/cache/blob-info-cache-v1.boltdb"  # root's skopeo keeps notes there
EXAMPLES = """examples:
    bench/run.py pull --ours target/x86_64-unknown-linux-gnu/release/imagecache --parts target/x86_64-unknown-linux-gnu/release/examples/parts
    bench/run.py pull --ours NEW --against before=OLD --no-peers --only tls     steer by two builds of ours
    bench/run.py pull --ours NEW --skopeo 1.22=/opt/skopeo/bin/skopeo           a skopeo that was had elsewhere
    bench/run.py far  --ours NEW --far-proxy FAR --corpus medium --rounds 2     less, sooner
    bench/run.py rss  --ours NEW --layer-mib 256                                a smaller layer
    make bench-pull BENCH="--corpus small --rounds 2"                           the same, and builds what it needs
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=list(CASES))
    parser.add_argument("--ours", required=True, metavar="BINARY")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=BINARY", help="another build of ours, side by side")
    parser.add_argument("--skopeo", action="append", default=[], metavar="NAME=PATH", help="a newer skopeo, had elsewhere; the one on PATH takes part anyway")
    parser.add_argument("--no-peers", action="store_true", help="ours alone, to steer by")
    parser.add_argument("--without", action="append", default=[], metavar="FAMILY", help="leaves a peer out, such as crane or regctl: a shorter run")
    parser.add_argument("--only", metavar="CASE", help="one case of several, such as http, tls, near, far")
    parser.add_argument("--rounds", type=int, default=4, help="the first is thrown away if there are more (default 4)")
    parser.add_argument("--corpus", choices=list(corpus.SHAPES), help="default full; noop: small, for sizes do not matter there")
    parser.add_argument("--connections", type=int, help="of ours, and of the peers that can be told (default 8; far 16)")
    parser.add_argument("--far-proxy", metavar="PROGRAM", help="bench/far.rs, built")
    parser.add_argument("--parts", metavar="PROGRAM", help="bench/parts.rs, built: without it the CPU limit is not judged")
    parser.add_argument("--layer-mib", type=int, default=10240, help="size of the layer of rss (default 10240)")
    parser.add_argument("--work", default=f"{TARGET}/bench", help="where the corpus is kept and the pulls go (default target/bench)")
    parser.add_argument("--memory", default="/dev/shm", help="a tmpfs, for near pulls where the disk is slow; empty for never (default /dev/shm)")
    parser.add_argument("--publish", action="store_true", help="write the tables and the chart of docs/performance.md")
    args = parser.parse_args()
    args.corpus = args.corpus or ("small" if args.which == "noop" else "full")
    args.work = os.path.abspath(args.work)
    args.against = [word.partition("=")[::2] for word in args.against]
    args.skopeo = [word.partition("=")[::2] for word in args.skopeo]
    return args


def everybody(args, kinds):
    mine = [peers.ours(args.ours)] + [peers.ours(binary, f"ours {name}") for name, binary in args.against]
    kinds = kinds - set(args.without)
    return mine + (peers.peers(args.skopeo, kinds) if kinds and not args.no_peers else [])


def served(args, shape, **options):
    data = f"{args.work}/corpus-{shape}"
    return servers.registry(args.work, data, **options)


def wanted(args, names):
    if args.only and args.only not in names:
        sys.exit(f"--only {args.only}: there are {', '.join(names)}")
    return [name for name in names if args.only in (None, name)]


def near(args, known, work, names, contestants, suffix=""):
    """Rounds of near pulls; returns the rows and the CPU limits, both by case."""
    started, all_of = [], []
    try:
        for name in names:
            started.append(served(args, args.corpus, tls=name == "tls"))
            all_of.append(cases.Case(name + suffix, known, started[-1], work, args.connections or 8))
            all_of[-1].log = f"{args.work}/log"
        for _ in range(args.rounds):
            for case in all_of:
                if args.parts:
                    case.parts.append(cases.parts(args.parts, case))
                # Over TLS the newest, and containerd's best setting, are enough: all of it should end in 20 minutes.
                case.round([c for c in contestants if not case.server.tls or not (c.older or c.family in ("ctr fetch", "ctr pull"))])
    finally:
        for server in started:
            server.stop()
        cases.clean(work)
    return [row for case in all_of for row in case.rows()], {case.name: cases.cpu_limit(case.parts, known["unique"]) for case in all_of if case.parts}


def pull(args, known):
    contestants = everybody(args, NEAR)
    out = report.new("pull", "Near registry", args.work, limits={})
    disk = [measure.disk_rate(args.work, mib=probe(known))]
    names = wanted(args, ["http", "tls"])
    out["rows"], out["limits"] = near(args, known, args.work, names, contestants)
    disk.append(measure.disk_rate(args.work, mib=probe(known)))
    slow = min((rate for rate in disk if rate), default=0)
    why = f"the raw disk does {slow} MB/s, less than {goals.GOOD_DISK}" if slow < goals.GOOD_DISK else None
    if why and args.memory and room(args.memory, known):
        inside = f"{args.memory}/imagecache-bench-{os.getpid()}"
        os.makedirs(inside)
        try:
            rows, limits = near(args, known, inside, names, [c for c in contestants if c.family in IN_MEMORY and not c.older], " memory")
        finally:
            subprocess.run(["rm", "-rf", inside])
        out["rows"] += rows
        out["limits"].update(limits)
    out.update(disk_mb_per_s=disk, goals=goals.near(out["rows"], out["limits"], why))
    return out, contestants


def probe(known):
    """MiB that tell the disk's rate: a small corpus is for trying things out."""
    return 1024 if known["unique"] > 1e9 else 64


def room(memory, known):
    """A tmpfs that holds the pulls while the registry's files stay in memory too."""
    if not os.path.isdir(memory) or measure.file_system(memory) != "tmpfs":
        return False
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    status = os.statvfs(memory)
    return min(status.f_bavail * status.f_frsize, available - known["unique"] - (1 << 30)) > 1.2 * known["unique"]


def far_server(args):
    if not args.far_proxy:
        sys.exit("this case needs --far-proxy, the program of bench/far.rs: make bench-far builds it")
    return servers.far(served(args, args.corpus), args.far_proxy)


def far(args, known):
    contestants = [c for c in everybody(args, NEAR - {"ctr fetch", "ctr pull", "oras"}) if not c.older]
    out = report.new("far", "Far registry, 40 ms and 40 MB/s per connection", args.work, far=servers.FAR)
    server = far_server(args)
    try:
        case = cases.Case("far", known, server, args.work, args.connections or 16)
        for _ in range(args.rounds):
            case.round(contestants)
    finally:
        server.stop()
        cases.clean(args.work)
    out["rows"] = list(case.rows())
    out["goals"] = goals.far(out["rows"], servers.FAR["mb_per_second"])
    return out, contestants


def overlap(args, known):
    everyone = [c for c in everybody(args, {"skopeo x4"}) if not c.older]
    contestants = [cases.overlap_ours(c.binary, known, c.name) if c.family == "ours" else cases.overlap_skopeo(c, known) for c in everyone]
    out = report.new("overlap", "Four processes, overlapping images, one store", args.work)
    for name in wanted(args, ["near", "far"]):
        server = far_server(args) if name == "far" else served(args, args.corpus)
        try:
            case = cases.Case(f"overlap {name}", known, server, args.work, args.connections or 8)
            for _ in range(args.rounds):
                case.round(contestants)
        finally:
            server.stop()
            cases.clean(args.work)
        out["rows"] += case.rows()
    out["goals"] = goals.overlap(out["rows"])
    return out, everyone


def noop(args, known):
    contestants = everybody(args, NEAR - {"ctr fetch", "ctr pull", "ctr chunks"})
    out = report.new("noop", "Nothing to do: 20 images that are there already", args.work)
    server = served(args, args.corpus, log=True)
    try:
        case = cases.Case("noop", known, server, args.work, args.connections or 8)
        out["rows"] = list(special.noop_rows(case, [found for _ in range(args.rounds) for found in special.noop(case, contestants)]))
    finally:
        server.stop()
        cases.clean(args.work)
    out["goals"] = goals.noop(out["rows"])
    return out, contestants


def rss(args, _):
    out = report.new("rss", "One huge layer", args.work)
    try:
        out["rows"] = list(special.huge_layer(args.ours, args.work, args.layer_mib, [args.connections] if args.connections else [8, 32], min(args.rounds, 2)))
    finally:
        cases.clean(args.work)
    out["goals"] = [goals.memory(row) if "rss" in row else goals.goal(f"{row['case']}: peak RSS at {row['connections']} connections", 64 if row["connections"] <= 8 else 128, None, True, row["why"]) for row in out["rows"]]
    return out, [peers.ours(args.ours)]


def verify(args, known):
    if not args.parts:
        sys.exit("this case needs --parts, the program of bench/parts.rs: make bench-verify builds it")
    contestants = [c for c in everybody(args, set()) if c.family == "ours"]
    out = report.new("verify", "Every stored byte hashed again", args.work)
    disk = [measure.disk_rate(args.work, read=True, mib=probe(known))]
    server = served(args, args.corpus)
    try:
        case = cases.Case("verify", known, server, args.work, args.connections or 8)
        runs = {}
        for kind, contestant, row, why in special.verify(contestants, case, args.rounds, args.parts):
            runs.setdefault((kind, contestant.name), []).append((row, why))
    finally:
        server.stop()
        cases.clean(args.work)
    disk.append(measure.disk_rate(args.work, read=True, mib=probe(known)))
    for (kind, name), found in runs.items():
        kept = found[1:] or found
        row = dict(case=kind, contestant=name, family="ours", note="", connections=8, unique=known["unique"], rounds=len(kept), walls=[round(r["wall"], 3) for r, _ in kept], **cases.medians([r for r, _ in kept]))
        why = next((why for _, why in found if why), None)
        out["rows"].append(dict(row, why=why) if why else row)
    rate = max((row["sha256_gb_per_core"] for row in out["rows"]), default=0)
    reading = [value for value in disk if value]
    out.update(disk_mb_per_s=disk, sha256_gb_per_core=rate, goals=goals.verify(out["rows"], os.cpu_count(), rate, sum(reading) / len(reading) if reading else None))
    return out, contestants


def versions(contestants):
    found = {}
    for binary, name in {c.binary: c.name if c.family == "ours" else os.path.basename(c.binary) for c in contestants}.items():
        found[name] = ", ".join(filter(None, [found.get(name), peers.version(binary)]))
    return dict(found, **{"docker-registry": peers.version("docker-registry")})


CASES = {"pull": pull, "far": far, "overlap": overlap, "noop": noop, "rss": rss, "verify": verify}


def main():
    args = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    needed = ["dd", "docker-registry", "openssl", *filter(None, [args.ours, args.parts, args.far_proxy])]
    for program in needed:
        if not shutil.which(program):
            sys.exit(f"{program} is not there: docker-registry and openssl are Debian packages, ours is built by make bench-build")
    os.makedirs(args.work, exist_ok=True)
    if not args.no_peers:
        peers.built()  # while there is a network
    alone = measure.own_loopback()
    open(f"{args.work}/log", "wb").close()
    noted = os.path.exists(BLOB_CACHE)
    try:
        known = None
        if args.which != "rss":
            known = corpus.make(f"{args.work}/corpus-{args.corpus}", args.corpus)
            print(report.describe(known, args.corpus), file=sys.stderr)
        out, contestants = CASES[args.which](args, known)
    finally:
        measure.stop_all()
        cases.clean(args.work)
        if not noted and os.path.exists(BLOB_CACHE):
            os.unlink(BLOB_CACHE)
    out["machine"]["loopback"] = "of its own" if alone else "shared"
    if known:
        out["corpus"] = report.describe(known, args.corpus)
    out["versions"] = versions(contestants)
    out["left_out"] = cases.LEFT_OUT + ([] if args.no_peers else peers.left_out())
    report.show(out)
    print(f"written: {report.write(out, args.work)}")
    if args.publish:
        report.publish(out)
        print(f"published: {report.PAGE}")


if __name__ == "__main__":
    main()
