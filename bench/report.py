"""What a run found, as a table, as JSON, and in docs/performance.md with a chart."""
import json, os, re, sys

import chart, measure

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PAGE = f"{ROOT}/docs/performance.md"
# Heading, whether it is a number, and its text; a column that no row has is left out.
COLUMNS = [
    ("case", False, lambda r: r["case"]),
    ("who", False, lambda r: r["contestant"] + (f" ({r['note']})" if r["note"] else "")),
    ("conns", True, lambda r: str(r["connections"]) if r["family"] == "ours" else "-"),
    ("wall s", True, lambda r: f"{r['wall']:.2f}"),
    ("MB/s", True, lambda r: f"{r['unique'] / 1e6 / r['wall']:.0f}" if "requests" not in r else ""),
    ("+sync s", True, lambda r: f"{r['sync']:.2f}" if r.get("sync") else ""),
    ("CPU s", True, lambda r: f"{r['cpu']:.2f}"),
    ("CPU s/GB", True, lambda r: f"{r['cpu'] / r['unique'] * 1e9:.2f}" if "requests" not in r else ""),
    ("registry s", True, lambda r: f"{r['registry_cpu']:.2f}" if r.get("registry_cpu") else ""),
    ("RSS MiB", True, lambda r: f"{r['rss']:.0f}" if r["rss"] else ""),
    ("bytes/unique", True, lambda r: f"{r['lo'] / r['unique']:.3f}" if r.get("lo") and "requests" not in r else ""),
    ("requests", True, lambda r: str(round(r["requests"])) if "requests" in r else ""),
]


def cells(rows):
    """Headings, their alignment, and the text of every row that was measured."""
    texts = [[text(row) for _, _, text in COLUMNS] for row in rows if "wall" in row]
    kept = [n for n in range(len(COLUMNS)) if any(line[n] for line in texts)]
    return [COLUMNS[n][0] for n in kept], [COLUMNS[n][1] for n in kept], [[line[n] for n in kept] for line in texts]


def aligned(heads, right, lines):
    widths = [max(map(len, column)) for column in zip(heads, *lines)]
    put = lambda line: "  ".join(text.rjust(width) if r else text.ljust(width) for text, r, width in zip(line, right, widths)).rstrip()
    return "\n".join(map(put, [heads, *lines]))


def markdown(heads, right, lines):
    put = lambda line: "| " + " | ".join(line) + " |"
    return "\n".join([put(heads), "|" + "|".join("--:" if r else "---" for r in right) + "|", *map(put, lines)])


def verdict(goal):
    return {True: "met", False: "missed", None: "not judged"}[goal["met"]]


def judged(goals):
    number = lambda value: "" if value is None else f"{value:.4g}"
    return [[verdict(g), g["name"], ("≤ " if g["below"] else "≥ ") + number(g["goal"]), number(g["measured"]), g.get("why", "")] for g in goals]


def show(report):
    print(aligned(*cells(report["rows"])))
    for name, limit in report.get("limits", {}).items():
        print(f"CPU limit, {name}: {limit_text(limit)}")
    if report.get("disk_mb_per_s"):
        print(f"raw disk, {disk_text(report)}")
    for line in losses(report["rows"]):
        print(f"behind: {line}")
    print(aligned(["", "goal", "wanted", "measured", ""], [False, False, True, True, False], judged(report["goals"])))


def limit_text(limit):
    each = ", ".join(f"{part} {limit[part]:.2f}" for part in ("receive", "sha256", "write", "registry"))
    return f"{limit['seconds']:.2f} s ({each} CPU seconds per GB)"


def disk_text(report):
    known = lambda value: "unknown" if value is None else f"{value}"
    before, after = report["disk_mb_per_s"][0], report["disk_mb_per_s"][-1]
    return f"before and after: {known(before)} and {known(after)} MB/s"


def losses(rows):
    """Where somebody does better than ours."""
    found = []
    rows = [dict(row, done=row["wall"] + (row.get("sync") or 0)) for row in rows if "wall" in row]
    measures = [("done", "wall with sync", "s", 2), ("cpu", "CPU", "s", 2), ("rss", "peak RSS", "MiB", 0), ("lo", "bytes received", "MB", 1), ("registry_cpu", "the registry's CPU", "s", 2), ("requests", "requests", "", 0)]
    for case in dict.fromkeys(row["case"] for row in rows):
        here = [row for row in rows if row["case"] == case]
        mine = next((row for row in here if row["contestant"] == "ours"), None)
        for key, what, unit, digits in measures:
            able = [row for row in here if row["family"] != "ours" and row.get(key) is not None and mine and mine.get(key) is not None]
            best = min(able, key=lambda row: row[key], default=None)
            # 2 % is within what two equal runs differ by.
            if best and best[key] < mine[key] * 0.98:
                value = lambda row: f"{row[key] / (1e6 if key == 'lo' else 1):.{digits}f} {unit}".rstrip()
                found.append(f"{case}, {what}: {best['contestant']} {value(best)}, ours {value(mine)}")
    return found


def write(report, work):
    path = f"{work}/{report['name']}.json"
    with open(path + ".tmp", "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.rename(path + ".tmp", path)
    return path


def publish(report, page=PAGE):
    """Fills the place between this report's markers, and draws its chart beside the page."""
    name, machine = report["name"], report["machine"]
    picture = f"{os.path.dirname(page)}/performance/{name}.svg"
    parts = [f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['kernel']}, {machine['file_system']}"
             + (f"; raw disk {disk_text(report)}" if report.get("disk_mb_per_s") else "") + ".",
             "Versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + f". Flags: `{' '.join(plain(report['flags']))}`."]
    if report.get("corpus"):
        parts[0] += f" {report['corpus']}."
    drawn = chart.draw(report)
    if drawn:
        os.makedirs(os.path.dirname(picture), exist_ok=True)
        with open(picture, "w") as file:
            file.write(drawn)
        parts.append(f"![{report['title']}](performance/{name}.svg)")
    parts.append(markdown(*cells(report["rows"])))
    parts += [f"CPU limit, {case}: {limit_text(limit)}." for case, limit in report.get("limits", {}).items()]
    behind = losses(report["rows"])
    if any(row["family"] != "ours" for row in report["rows"]):
        parts.append("Where others do better:\n\n" + "\n".join(f"- {line}" for line in behind) if behind else "Nobody measured here does better in any column.")
    parts.append(markdown(["", "goal", "wanted", "measured", "why"], [False, False, True, True, False], judged(report["goals"])))
    if report.get("left_out"):
        parts.append("Left out: " + "; ".join(report["left_out"]) + ".")
    with open(page) as file:
        text = file.read()
    marked = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.S)
    if not marked.search(text):
        sys.exit(f"{page} has no place for {name}: it needs the lines <!-- {name}:begin --> and <!-- {name}:end -->")
    with open(page, "w") as file:
        file.write(marked.sub(lambda found: found[1] + "\n" + "\n\n".join(parts) + "\n\n" + found[2], text))


def plain(flags):
    """Without the folders of one machine."""
    return [re.sub(r"[^=]*/", "", word) for word in flags if word != "--publish"]


def describe(known, shape):
    return f"Corpus {shape}: {len(known['images'])} images, {known['unique'] / 1e6:.0f} MB unique, {known['naive'] / 1e6:.0f} MB if nothing were shared"


def new(name, title, work, **more):
    return dict(name=name, title=title, rows=[], goals=[], flags=sys.argv[1:], machine=measure.machine(work), **more)
