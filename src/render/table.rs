/// Rows as columns aligned with two spaces between, no trailing blanks; the first row is the heading.
pub fn table<S: AsRef<str>>(rows: &[Vec<S>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.as_ref().chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<S>| {
        let cells = row.iter().enumerate().map(|(c, text)| format!("{:<w$}", text.as_ref(), w = widths[c]));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns() {
        assert_eq!(table(&[vec!["NODE", "X"], vec!["cp", "12"]]), "NODE  X\ncp    12\n");
    }
}
