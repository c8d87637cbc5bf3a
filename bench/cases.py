"""Pulls side by side: one registry, the contestants against it, round by round."""
import os, shutil, statistics, subprocess, sys

import corpus, measure, peers


LEFT_OUT = []  # contestants that failed, with the reason: they are in no row from then on


class Failed(SystemExit):
    """Ours failed, or a part of the harness: there is nothing to report."""


def leave_out(text):
    print(f"left out from here on: {text}", file=sys.stderr)
    LEFT_OUT.append(text)


class Case:
    """One registry and one folder that is emptied before every run."""

    def __init__(self, name, known, server, work, connections):
        self.name, self.known, self.server, self.work, self.connections = name, known, server, work, connections
        self.runs, self.notes, self.dead, self.checked = {}, {}, set(), set()
        self.log = f"{work}/log"
        self.parts = []  # CPU seconds per GB, a sample a round

    def target(self):
        out = f"{self.work}/out"
        references = [f"{self.server.host}/{i['repository']}:{i['tag']}" for i in self.known["images"]]
        return peers.Target(self.server.host, self.server.tls, references, out, self.connections)

    def once(self, contestant, warm=False):
        """One run into an empty folder, or the second of two into the same folder. None if a peer failed."""
        target = self.target()
        measure.empty(target.out)
        env = environment(self.work)
        with open(self.log, "ab") as log:
            log.write(f"--- {self.name} {contestant.name}\n".encode())
            log.flush()
            with contestant.daemon(target, log) if contestant.daemon else nobody() as beside:
                lines = contestant.lines(target)
                if warm:
                    measure.run(lines, contestant.at_once, log, env, beside)
                lo, registry = measure.lo_bytes(), self.server.cpu()
                row = measure.run(lines, contestant.at_once, log, env, beside)
                row["lo"] = (measure.lo_bytes() - lo) / self.server.wire
                row["registry_cpu"] = self.server.cpu() - registry
                row["sync"] = measure.timed_sync()
        count = row.pop("failed")
        failed = f"{count} of {len(lines)} commands failed" if count else None
        # Ours is hashed again after every run, a peer once.
        whole = contestant.family == "ours" or contestant.name not in self.checked
        failed = failed or peers.check(self.known, target.out, whole)
        self.checked.add(contestant.name)
        if failed:
            text = f"{self.name}: {contestant.name}: {failed}"
            if contestant.family == "ours":
                raise Failed(f"{text}, see {self.log}")
            leave_out(text)
            self.dead.add(contestant.name)
            return None
        return row

    def round(self, contestants, warm=False):
        for contestant in contestants:
            if contestant.name in self.dead:
                continue
            row = self.once(contestant, warm)
            if row:
                self.add(contestant, row)

    def add(self, contestant, row):
        self.runs.setdefault(contestant.name, []).append(row)
        self.notes[contestant.name] = (contestant.family, contestant.note)
        print(f"  {self.name:12} {contestant.name:26} {row['wall']:8.2f} s", file=sys.stderr, flush=True)

    def rows(self):
        """Medians without the first round."""
        for name, runs in self.runs.items():
            if name in self.dead:
                continue
            kept = runs[1:] or runs
            family, note = self.notes[name]
            yield dict(case=self.name, contestant=name, family=family, note=note, connections=self.connections, unique=self.known["unique"], rounds=len(kept),
                       walls=[round(run["wall"], 3) for run in kept], **medians(kept))


def medians(runs):
    return {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}


class nobody:
    def __enter__(self):
        return []

    def __exit__(self, *_):
        pass


def environment(work):
    """Of a contestant: no proxies, and a home of its own, so that nothing is left in the user's."""
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    home = f"{work}/home"
    os.makedirs(home, exist_ok=True)
    return dict(env, HOME=home, XDG_RUNTIME_DIR=home, XDG_CACHE_HOME=home, XDG_DATA_HOME=home, DOCKER_CONFIG=home)


def parts(program, case):
    """CPU seconds per GB of each part of a pull, alone: what no client can do with less."""
    blobs = corpus.blobs(case.known)
    paths, out = f"{case.work}/paths", f"{case.work}/out"
    measure.empty(out)
    with open(paths, "w") as file:
        file.writelines(f"/v2/{repository}/blobs/{digest}\n" for digest, (repository, _) in blobs.items())
    received = sum(size for _, size in blobs.values()) / 1e9
    # The same number of whole blocks for every thread.
    cores, threads = os.cpu_count(), 8
    mib = max(256 if case.known["unique"] < 1e9 else 2048, 64 * cores) // (4 * cores * threads) * (4 * cores * threads)
    gb = (mib << 20) / 1e9
    before = case.server.cpu()
    with open(paths) as words:
        words = subprocess.Popen([program, "receive", case.server.host, str(case.connections), *([case.server.cert] if case.server.cert else [])], stdin=words)
        measure.LIVE.add(words)
        _, status, usage = os.wait4(words.pid, 0)
        words.returncode = os.waitstatus_to_exitcode(status)
        measure.LIVE.discard(words)
    os.unlink(paths)
    if words.returncode:
        raise Failed(f"{program} receive failed")
    registry = case.server.cpu() - before
    hashed, written = measure.run([[program, "sha256", str(mib), str(cores)]]), measure.run([[program, "write", out, str(mib), str(threads)]])
    if hashed["failed"] or written["failed"]:
        raise Failed(f"{program} failed")
    return dict(receive=(usage.ru_utime + usage.ru_stime) / received, sha256=hashed["cpu"] / gb, write=written["cpu"] / gb, registry=registry / received,
                sha256_gb_per_core=gb / hashed["cpu"])


def cpu_limit(samples, unique):
    """The parts' medians, and the seconds they would take if every core did nothing else."""
    kept = medians(samples[1:] or samples)
    per_gb = sum(kept[part] for part in ("receive", "sha256", "write", "registry"))
    return dict(kept, seconds=round(per_gb * unique / 1e9 / os.cpu_count(), 3))


def overlapping(known, processes=4):
    """Which images each process pulls: every image by two of them."""
    count = len(known["images"])
    share = max(1, count // processes)
    return [sorted({(first * share + n) % count for n in range(2 * share)}) for first in range(processes)]


def overlap_ours(binary, known, name="ours x4"):
    def lines(t):
        return [peers.pull(binary, t, [t.references[n] for n in numbers], "--name", f"p{k}", "--public-registry", t.host) for k, numbers in enumerate(overlapping(known))]
    return peers.Contestant(name, "ours", binary, lines, 4)


def overlap_skopeo(one, known):
    """Four processes, each copying its images in turn, with the blobs shared and a layout of its own per image."""
    def lines(t):
        whole = one.lines(t)
        own = lambda k, argv: [*argv[:-1], argv[-1].replace(f"{t.out}/", f"{t.out}/p{k}-")]
        return [[own(k, whole[n]) for n in numbers] for k, numbers in enumerate(overlapping(known))]
    return peers.Contestant(one.name, one.family, one.binary, lines, 4, one.note)


def clean(work):
    for name in ("out", "home"):
        shutil.rmtree(f"{work}/{name}", ignore_errors=True)
