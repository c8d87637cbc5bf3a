//! Tables and sizes for people: columns line up, sizes are in the units that `df -h` means.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Columns are as wide as their widest cell, two spaces apart; no trailing spaces.
pub fn columns(header: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let len = |text: &str| text.chars().count();
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| len(cell));
        cells.chain([len(header[i].0)]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = header.iter().map(|(name, _)| (*name).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(header).zip(&widths) {
            let padding = " ".repeat(width.saturating_sub(len(cell)));
            match align {
                Align::Left => line.extend([cell.as_str(), &padding, "  "]),
                Align::Right => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1536` is `1.5 KiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would print as 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_right() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = vec![
            vec!["é".into(), "1 B".into(), "x".into()],
            vec!["long".into(), "10 B".into(), String::new()],
        ];
        let header = [("NAME", Align::Left), ("SIZE", Align::Right), ("STATE", Align::Left)];
        assert_eq!(columns(&header, &rows), "NAME  SIZE  STATE\né      1 B  x\nlong  10 B\n");
    }
}
