use super::{BookingId, Epoch};

/// Somebody on the waitlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The waiting booking.
    pub booking: BookingId,
    /// Seconds that its holder used in the last seven days.
    pub used: i64,
    /// How many offers of this wait the holder let lapse.
    pub lapses: i64,
    /// Since when it waits.
    pub since: Epoch,
}

/// Puts who is asked first in front.
///
/// Who let an offer lapse and may be asked again stands behind all who were not asked yet, else one absent person would block
/// the queue; then who had least goes first, then who waits longest, then by id, so that the order is the same everywhere.
pub fn by_fairness(queue: &mut [Waiting]) {
    queue.sort_by(|a, b| (a.lapses, a.used, a.since, &a.booking).cmp(&(b.lapses, b.used, b.since, &b.booking)));
}
