"""Questions with a run of their own: nothing to do, the memory of a huge layer, and verify."""
import json, os, shutil, subprocess, sys

import cases, measure, peers, servers


def worker_lines(binary, target, run):
    """The worker of a Job that is run again: same request, and the root is complete."""
    request = dict(cache="bench", name="bench", run=run, inputs="the same", images=target.references, platforms=["linux/amd64"], sizeLimit=None, reuse=True, credentialsOverHttp=False,
                   access={target.host: {"transport": "plainHttp", "overridden": False}})
    path, none = f"{target.out}/request-{run}.json", f"{target.out}/none"
    os.makedirs(none, exist_ok=True)
    with open(path, "w") as file:
        json.dump(request, file)
    return [[binary, "worker", "--request", path, "--credentials", none, "--volume", f"{target.out}/store", "--termination-log", f"{target.out}/ended"]]


def noop(case, contestants):
    """One round: the first pull is not measured, the second is, with the requests that reach the registry."""
    for contestant in contestants:
        kinds = ["tags again"] if contestant.family != "ours" else ["same request", "tags again"]
        for kind in kinds:
            target = case.target()
            measure.empty(target.out)
            with open(case.log, "ab") as log:
                env = cases.environment(case.work)
                if kind == "same request":
                    first, second = (worker_lines(contestant.binary, target, run) for run in (1, 2))
                elif contestant.family == "ours":
                    # The same images for another cache: anonymous, unchanged, and all of it stored.
                    first, second = [peers.pull(contestant.binary, target, target.references)], [peers.pull(contestant.binary, target, target.references, "--name", "again")]
                else:
                    first = second = contestant.lines(target)
                failed = measure.run(first, contestant.at_once, log, env)["failed"]
                _, position = case.server.requests()
                lo = measure.lo_bytes()
                row = measure.run(second, contestant.at_once, log, env)
                row["lo"] = measure.lo_bytes() - lo
            failed += row.pop("failed")
            if failed:
                text = f"noop, {kind}: {contestant.name} failed"
                if contestant.family == "ours":
                    raise cases.Failed(f"{text}, see {case.log}")
                cases.leave_out(text)
                continue
            methods, _ = case.server.requests(position)
            row.update(requests=len(methods), heads=methods.count("HEAD"), sync=0, registry_cpu=0)
            yield kind, contestant, row


def noop_rows(case, found):
    """Medians by kind and contestant, without the first round."""
    runs = {}
    for kind, contestant, row in found:
        runs.setdefault((kind, contestant.name), []).append((contestant, row))
    for (kind, name), all_of in runs.items():
        kept = [row for _, row in (all_of[1:] or all_of)]
        one = all_of[0][0]
        yield dict(case=kind, contestant=name, family=one.family, note=one.note, connections=case.connections, unique=case.known["unique"], images=len(case.known["images"]), rounds=len(kept),
                   walls=[round(row["wall"], 3) for row in kept], **cases.medians(kept))


def huge_layer(binary, work, mib, connections, rounds):
    """Peak memory while one layer of zeros is pulled. The disk must hold it twice."""
    size = mib << 20
    for many in connections:
        name = f"{mib / 1024:g} GiB layer"
        row = dict(case=name, contestant="ours", family="ours", note="", connections=many, unique=size)
        free = shutil.disk_usage(work).free
        if free < 2 * size:
            yield dict(row, why=f"needs {2 * mib} MiB of disk, {free >> 20} MiB are free")
            continue
        runs = []
        for _ in range(rounds):
            server, out = servers.zeros(work, size), f"{work}/out"
            try:
                measure.empty(out)
                target = peers.Target(server.host, False, [f"{server.host}/zeros/layer:v1"], out, many)
                with open(f"{work}/log", "ab") as log:
                    lo, registry = measure.lo_bytes(), server.cpu()
                    run = measure.run([peers.pull(binary, target, target.references)], 1, log, cases.environment(work))
                    run.update(lo=measure.lo_bytes() - lo, registry_cpu=server.cpu() - registry, sync=measure.timed_sync())
                if run.pop("failed"):
                    raise cases.Failed(f"{name}: ours failed, see {work}/log")
            finally:
                server.stop()
                shutil.rmtree(out, ignore_errors=True)
            print(f"  {name:12} {many} connections {run['wall']:8.2f} s, {run['rss']:.0f} MiB", file=sys.stderr, flush=True)
            runs.append(run)
        yield dict(row, rounds=len(runs), walls=[round(run["wall"], 3) for run in runs], **cases.medians(runs))


def files_of(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


def warm(folder):
    """Reads everything into the page cache."""
    for path in files_of(folder):
        with open(path, "rb", buffering=0) as file:
            while file.read(4 << 20):
                pass


def cold(folder):
    """Takes everything out of the page cache; these files only, which needs no root."""
    os.sync()
    for path in files_of(folder):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_cached(folder):
    """Whether the largest file is still in the page cache, where `fincore` can say so."""
    largest = max(files_of(folder), key=os.path.getsize)
    try:
        done = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", largest], capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and int(done.stdout.split()[0]) > os.path.getsize(largest) // 10


def verify(contestants, case, rounds, parts):
    """Filled once by ours, then verified warm and cold in turn. Yields kind, contestant and row."""
    target = case.target()
    measure.empty(target.out)
    env, store = cases.environment(case.work), f"{target.out}/store"
    with open(case.log, "ab") as log:
        if measure.run([peers.pull(contestants[0].binary, target, target.references)], 1, log, env)["failed"]:
            raise cases.Failed(f"verify: the pull before failed, see {case.log}")
        mib = 1024 if case.known["unique"] < 1e9 else 8192
        for _ in range(rounds):
            hashed = measure.run([[parts, "sha256", str(mib), "1"]])
            rate = (mib << 20) / 1e9 / hashed["wall"]
            for kind, before in (("verify warm", warm), ("verify cold", cold)):
                for contestant in contestants:
                    before(store)
                    why = "the page cache could not be emptied" if kind == "verify cold" and is_cached(store) else None
                    row = measure.run([[contestant.binary, "verify", store]], 1, log, env)
                    if row.pop("failed"):
                        raise cases.Failed(f"{kind}: {contestant.name} failed, see {case.log}")
                    row.update(lo=0, sync=0, registry_cpu=0, sha256_gb_per_core=rate)
                    print(f"  {kind:12} {contestant.name:26} {row['wall']:8.2f} s", file=sys.stderr, flush=True)
                    yield kind, contestant, row, why
