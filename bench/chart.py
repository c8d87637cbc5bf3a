"""Horizontal bars as SVG: seconds, a panel a case, shorter is better. Readable on light and dark pages."""
from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, ROW, HEAD = 800, 270, 430, 22, 34
OURS, OTHERS, SYNC = "#2a7f62", "#8c96a0", "#c3cad1"


def draw(report):
    """None if there is nothing to compare in seconds."""
    rows = [row for row in report["rows"] if "wall" in row]
    panels = [(case, [row for row in rows if row["case"] == case]) for case in dict.fromkeys(row["case"] for row in rows)]
    if not panels:
        return None
    out, y = [], 44
    for case, here in panels:
        out.append(f'<text class="t" x="12" y="{y + 16}" font-weight="bold">{escape(case)}</text>')
        y += HEAD - 8
        longest = max(total(row) for row in here)
        for row in sorted(here, key=total):
            out += bar(row, y, BAR / longest if longest else 0)
            y += ROW
        y += 12
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img" font-family="sans-serif" font-size="13">\n'
            '<style>.t{fill:#24292f}.p{fill:#fff}@media(prefers-color-scheme:dark){.t{fill:#e6edf3}.p{fill:#0d1117}}</style>\n'
            f'<title>{escape(report["title"])}</title>\n<rect class="p" width="{WIDTH}" height="{y}"/>\n'
            f'<text class="t" x="12" y="26" font-size="15">{escape(report["title"])}: seconds, shorter is better</text>\n')
    return head + "\n".join(out) + "\n</svg>\n"


def total(row):
    return row["wall"] + (row.get("sync") or 0)


def bar(row, y, scale):
    """The time of the command, and lighter the time until its bytes are on the disk."""
    name = row["contestant"] + (f", {row['note']}" if row["note"] else "")
    if row["family"] == "ours" and row["connections"] != 8:
        name += f", {row['connections']} connections"
    wall, sync = row["wall"] * scale, (row.get("sync") or 0) * scale
    seconds = f"{total(row):.2f}" if total(row) < 10 else f"{total(row):.1f}"
    return [f'<text class="t" x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL}" y="{y + 3}" width="{max(wall, 1):.1f}" height="{ROW - 6}" fill="{OURS if row["family"] == "ours" else OTHERS}"/>',
            f'<rect x="{LABEL + wall:.1f}" y="{y + 3}" width="{sync:.1f}" height="{ROW - 6}" fill="{SYNC}"/>',
            f'<text class="t" x="{LABEL + wall + sync + 6:.1f}" y="{y + 15}">{seconds}</text>']
