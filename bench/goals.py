"""What the rows are held against. A goal is met, missed, or not judged, and then it says why."""
GOOD_DISK = 1800  # MB/s: below, a near pull measures the disk


def goal(name, wanted, value, below=False, why=None):
    """One line of the report; `value` is None where there was nothing to measure."""
    if value is None and why is None:
        why = "not measured"
    met = None if why else (value <= wanted if below else value >= wanted)
    found = dict(name=name, goal=wanted, below=below, measured=None if value is None else round(value, 4), met=met)
    return dict(found, why=why) if why else found


def near(rows, limits, slow_disk):
    """`slow_disk` says why the cases on this disk are not judged, if they are not."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        mine, others = split(rows, case)
        if not mine:
            continue
        tls, in_memory = case.startswith("tls"), case.endswith("memory")
        why = slow_disk if slow_disk and not in_memory else None
        alone = fastest(others, lambda row: row["family"] == "skopeo")
        best = fastest(others, lambda row: True, synced=True)
        if alone:
            found.append(goal(f"{case}: times faster than {alone['contestant']}", 2.8 if tls else 2.5, alone["wall"] / mine["wall"], why=why))
        if best:
            wall = best["wall"] + best["sync"]
            found.append(goal(f"{case}: times faster than the best peer with its sync ({best['contestant']})", 1.7 if tls else 1.6, wall / mine["wall"], why=why))
        if case in limits:
            found.append(goal(f"{case}: share of the CPU limit", 0.75, limits[case]["seconds"] / mine["wall"], why=why))
        found += [goal(f"{case}: CPU seconds per GB", 1.25 if tls else 1.1, mine["cpu"] / mine["unique"] * 1e9, below=True), memory(mine),
                  goal(f"{case}: bytes received over unique bytes", 1.01, mine["lo"] / mine["unique"], below=True)]
    return found


def far(rows, mb_per_second):
    mine, others = split(rows, "far")
    alone = fastest(others, lambda row: row["family"] == "skopeo")
    chunks = fastest(others, lambda row: row["family"] == "ctr chunks")
    found = []
    if alone:
        found.append(goal(f"far: times faster than {alone['contestant']}", 6, alone["wall"] / mine["wall"]))
    if chunks:
        found.append(goal(f"far: times faster than {chunks['contestant']}", 3, chunks["wall"] / mine["wall"]))
    share = mine["unique"] / 1e6 / mine["wall"] / (mine["connections"] * mb_per_second)
    return found + [goal("far: share of connections x rate", 0.6, share), memory(mine), goal("far: bytes received over unique bytes", 1.01, mine["lo"] / mine["unique"], below=True)]


def noop(rows):
    found = []
    for row in (row for row in rows if row["contestant"] == "ours"):
        if row["case"] == "same request":
            found.append(goal("same request: requests", 0, row["requests"], below=True))
        else:
            found += [goal(f"{row['case']}: seconds", 0.10, row["wall"], below=True), goal(f"{row['case']}: HEADs per image, and nothing else", 1, row["requests"] / row["images"], below=True),
                      goal(f"{row['case']}: requests that are not HEADs", 0, row["requests"] - row["heads"], below=True)]
    return found


def overlap(rows):
    return [goal(f"{row['case']}: bytes received over unique bytes", 1.01, row["lo"] / row["unique"], below=True) for row in rows if row["contestant"] == "ours"]


def memory(row):
    return goal(f"{row['case']}: peak RSS in MiB at {row['connections']} connections", 64 if row["connections"] <= 8 else 128, row["rss"], below=True)


def verify(rows, cores, hash_gb_per_core, disk_read):
    """As fast as the cores hash, or as the disk reads where that is less."""
    found = []
    for row in (row for row in rows if row["contestant"] == "ours"):
        hashing, reading = cores * hash_gb_per_core * 1000, disk_read if row["case"] == "verify cold" else None
        limit = min(hashing, reading) if reading else hashing
        what = "the disk's reads" if limit == reading else f"{cores} cores hashing"
        found.append(goal(f"{row['case']}: share of what {what} can do ({limit:.0f} MB/s)", 0.8, row["unique"] / 1e6 / row["wall"] / limit, why=row.get("why")))
    return found


def split(rows, case):
    """Our row of a case, and the peers'. Other builds of ours are neither."""
    here = [row for row in rows if row["case"] == case]
    return next((row for row in here if row["contestant"] == "ours"), None), [row for row in here if row["family"] != "ours"]


def fastest(rows, like, synced=False):
    return min((row for row in rows if like(row)), key=lambda row: row["wall"] + (row["sync"] if synced else 0), default=None)
