/// The choice that `word` most likely meant, or `None` when none is close enough to suggest.
pub fn nearest<'c>(word: &str, choices: &[&'c str]) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let (far, best) = choices.iter().map(|choice| (distance(&word, &plain(choice)), *choice)).min()?;
    (far <= (best.chars().count() / 3).max(1)).then_some(best)
}

/// Letters to add, drop, change or swap with a neighbour (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    // A word from a hostile file may be long; beyond this it is no slip of the finger.
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![vec![0usize; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let change = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word() {
        let keys = ["layout", "kubernetes", "nodes", "network", "proxy", "mirrors"];
        for (slip, meant) in [
            ("layuot", Some("layout")),
            ("kubernets", Some("kubernetes")),
            ("Nodes", Some("nodes")),
            ("node", Some("nodes")),
            ("mirror", Some("mirrors")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, &keys), meant, "{slip}");
        }
        assert_eq!(nearest("control_plane", &["control-plane", "worker"]), Some("control-plane"));
        assert_eq!(nearest("x", &[]), None);
    }
}
