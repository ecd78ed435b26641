use std::fmt::Write as _;

/// Seconds of one column of the grid: five minutes.
pub const UNIT: i64 = 300;

/// The longest day that the grid can show, columns: 26 hours.
pub const MOST_UNITS: i64 = 26 * 12;

/// Most lanes that a row shows apart; places above them share the last one.
pub const MOST_LANES: u32 = 12;

/// Classes for columns and lanes: the content security policy forbids `style` attributes, so each position has a name.
///
/// `sN` and `eN` are the first column and the one after the last, `lN` the lane, `uN` a day of N columns.
pub fn positions() -> String {
    let mut css = String::from("\n/* positions */\n");
    for n in 0..=MOST_UNITS {
        // Writing to a String cannot fail.
        let _ = write!(css, ".s{n}{{grid-column-start:{0}}}.e{n}{{grid-column-end:{0}}}", n + 1);
    }
    for n in 0..MOST_LANES {
        let _ = write!(
            css,
            ".l{n}{{grid-row:{}}}.p{1}{{grid-template-rows:repeat({1},minmax(2.25rem,auto))}}",
            n + 1,
            n + 1
        );
    }
    for n in (22 * 12..=MOST_UNITS).step_by(3) {
        let _ = write!(css, ".u{n}{{grid-template-columns:repeat({n},minmax(0,1fr))}}");
    }
    css
}
