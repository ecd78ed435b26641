use unicode_width::UnicodeWidthStr;

use crate::core::shell::printable;

/// Rows as columns aligned with two spaces between, no trailing blanks; the first row is the heading.
///
/// Columns are of a terminal: a Chinese character takes two. Cells are foreign text, as what a host says of itself.
pub fn table<S: AsRef<str>>(rows: &[Vec<S>]) -> String {
    let shown = |row: &Vec<S>| row.iter().map(|cell| printable(cell.as_ref())).collect::<Vec<String>>();
    let rows: Vec<_> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.width()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(c, text): (usize, &String)| format!("{text}{}", " ".repeat(widths[c] - text.width()));
        let cells = row.iter().enumerate().map(cell);
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_as_a_terminal_shows_them() {
        assert_eq!(table(&[vec!["NODE", "X"], vec!["cp", "12"]]), "NODE  X\ncp    12\n");
        let chinese =
            table(&[vec!["LOGIN", "NAME", "X"], vec!["li", "\u{674e}\u{5a1c}", "1"], vec!["amy", "Amy", "2"]]);
        assert_eq!(chinese, "LOGIN  NAME  X\nli     \u{674e}\u{5a1c}  1\namy    Amy   2\n");
    }

    #[test]
    fn no_cell_moves_the_cursor_or_makes_a_line() {
        let text = table(&[vec!["SYSTEM", "X"], vec!["\x1b]52;c;eA==\x07", "1"], vec!["\u{202e}x\ncp", "2"]]);
        let columns = "SYSTEM              X\n\\x1b]52;c;eA==\\x07  1\n\\u{202e}x\\x0acp     2\n";
        assert_eq!(text, columns);
    }
}
