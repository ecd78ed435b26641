use super::{Epoch, Window};

/// The length of the window in which quotas count: seven days, in seconds.
pub const ROLLING: i64 = 7 * 86_400;

/// Time that counts against a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// When it began or will begin.
    pub starts: Epoch,
    /// How much of it counts, seconds.
    pub seconds: i64,
}

impl Use {
    fn window(self) -> Option<Window> {
        Window::new(self.starts, self.starts + self.seconds).ok()
    }
}

/// The most seconds that fall into any seven days which touch `around`.
///
/// The sum changes its slope only where a week begins or ends with a use, so only those weeks are looked at.
pub fn most_in_any_week(uses: &[Use], around: Window) -> i64 {
    let windows: Vec<Window> = uses.iter().filter_map(|u| u.window()).collect();
    let starts = windows.iter().flat_map(|w| [w.starts, w.ends, w.starts - ROLLING, w.ends - ROLLING]);
    // The first and the last week that has a second of it, besides the two that begin and end with it.
    let own = [around.starts, around.ends - ROLLING, around.starts - ROLLING + 1, around.ends - 1];
    starts
        .chain(own)
        .filter(|at| *at < around.ends && *at + ROLLING > around.starts)
        .map(|at| seconds_in(&windows, Window { starts: at, ends: at + ROLLING }))
        .max()
        .unwrap_or(0)
}

/// The seconds used in the seven days before a moment: what fairness compares.
pub fn used_before(uses: &[Use], now: Epoch) -> i64 {
    let windows: Vec<Window> = uses.iter().filter_map(|u| u.window()).collect();
    seconds_in(&windows, Window { starts: now - ROLLING, ends: now })
}

/// The seconds used from a moment on.
pub fn used_after(uses: &[Use], now: Epoch) -> i64 {
    let windows: Vec<Window> = uses.iter().filter_map(|u| u.window()).collect();
    seconds_in(&windows, Window { starts: now, ends: Epoch::LAST })
}

fn seconds_in(windows: &[Window], range: Window) -> i64 {
    windows.iter().filter_map(|w| w.common(range)).map(Window::length).sum()
}
