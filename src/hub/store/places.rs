use super::{
    bookings::{LEFT, as_it_left, opt},
    states::states,
    tx::Tx,
    value::args,
};
use crate::{
    core::Problem,
    hub::domain::{Booking, BookingId, Calendar, Epoch, Held, ServerId, State, Window},
};

/// The action of an offer that lapsed though its holder could have taken it.
pub const LAPSE: &str = "clerk.lapse";

/// Places on servers: what is taken, held back, not clear yet, or was given up.
impl Tx {
    /// What is taken on a server in a window: live bookings, and what was given up but not confirmed by its agent.
    pub async fn held(&mut self, server: &ServerId, window: Window) -> Result<Calendar, Problem> {
        let sql = concat!(
            "SELECT id AS booking, place, layout, starts, busy_until FROM bookings WHERE server = $1 \
             AND busy_until > $2 AND starts < $3 AND state IN ",
            states!(is_live)
        );
        let values = || args![server.to_string(), window.starts, window.ends];
        let mut rows = self.all(sql, values()).await?;
        let holds = "SELECT h.booking, h.place, h.layout, h.starts, h.busy_until FROM holds AS h JOIN servers AS s \
                     ON s.id = h.server WHERE h.server = $1 AND h.busy_until > $2 AND h.starts < $3 AND s.acked < h.revision";
        rows.extend(self.all(holds, values()).await?);
        rows.iter()
            .map(|row| {
                Ok(Held {
                    booking: row.parse("booking")?,
                    place: u32::try_from(row.int("place")?).unwrap_or(0),
                    layout: row.parse("layout")?,
                    busy: Window { starts: row.epoch("starts")?, ends: row.epoch("busy_until")? },
                })
            })
            .collect()
    }

    /// Whether a place is not clear yet for a booking of it, or its holder not out of another one on the same server: what
    /// has begun there is not over, and an agent begins nothing before.
    pub async fn is_held_up(&mut self, wants: &Booking) -> Result<bool, Problem> {
        let (Some(server), Some(place)) = (&wants.server, wants.place) else { return Ok(false) };
        let sql = concat!(
            "SELECT id FROM bookings WHERE server = $1 AND (place = $2 OR person = $3) AND id <> $4 AND state IN ",
            states!(is_begun),
            " LIMIT 1"
        );
        let values = args![server.to_string(), i64::from(place), wants.person.to_string(), wants.id.to_string()];
        Ok(self.one(sql, values).await?.is_some())
    }

    /// Keeps a window from being sold again until the server's agent has confirmed a plan without it.
    ///
    /// Where no agent was ever given a plan that could hold it, there is nothing to wait for; an offer is in none.
    pub async fn hold(&mut self, gone: &Booking, from: Epoch) -> Result<(), Problem> {
        if gone.state == State::Offered {
            return Ok(());
        }
        let (Some(server), Some(place)) = (&gone.server, gone.place) else { return Ok(()) };
        let sql = "INSERT INTO holds (booking, server, place, layout, starts, busy_until, revision) \
                   SELECT $1, id, $3, $4, $5, $6, revision FROM servers WHERE id = $2 AND issued > 0";
        let values = args![
            gone.id.to_string(),
            server.to_string(),
            i64::from(place),
            gone.layout.to_string(),
            from.max(gone.window.starts),
            gone.busy_until,
        ];
        self.run(sql, values).await.map(drop)
    }

    /// When an offer of a wait lapsed last that its holder could have taken; none where none did.
    pub async fn last_lapse(&mut self, id: &BookingId) -> Result<Option<Epoch>, Problem> {
        let sql = "SELECT max(moment) AS moment FROM audit WHERE subject = $1 AND action = $2";
        let row = self.one(sql, args![format!("booking:{id}"), LAPSE]).await?;
        row.map_or(Ok(None), |row| row.opt_epoch("moment"))
    }

    /// Whether a place that touches a window was given up at a moment or after it, on one server or on any.
    pub async fn is_given_up_since(
        &mut self,
        window: Window,
        moment: Epoch,
        on: Option<&ServerId>,
    ) -> Result<bool, Problem> {
        // No slot is longer than a week: what is long over is not read.
        let sql = concat!(
            "SELECT 1 AS n FROM bookings WHERE state IN ",
            states!(is_given_up),
            " AND place IS NOT NULL AND (CAST($4 AS TEXT) IS NULL OR server = $4) AND busy_until > $1 AND starts < $2 \
             AND since >= $3 AND starts > $5 LIMIT 1"
        );
        let longest = window.starts - 8 * 86_400;
        let gone = args![window.starts, window.ends, moment, opt(on), longest];
        if self.one(sql, gone).await?.is_some() {
            return Ok(true);
        }
        // What was ended early ends earlier by now: the audit knows.
        let sql = "SELECT 1 AS n FROM bookings AS b WHERE b.updated >= $1 AND b.busy_until >= $1 AND b.starts < $2 \
                   AND (CAST($3 AS TEXT) IS NULL OR b.server = $3) AND EXISTS (SELECT 1 FROM audit AS a \
                   WHERE a.subject = 'booking:' || b.id AND a.moment >= $1 AND \
                   a.action IN ('booking.release', 'booking.cancel', 'clerk.closed')) LIMIT 1";
        if self.one(sql, args![moment, window.ends, opt(on)]).await?.is_some() {
            return Ok(true);
        }
        // What was moved away is noted with the server that it left. So is an offer of any server that lapsed or was taken back:
        // that was given up by nobody.
        let sql = "SELECT a.detail AS detail FROM servers AS s CROSS JOIN audit AS a WHERE a.subject = 'server:' || s.id \
                   AND a.action = $1 AND a.moment >= $2 AND s.removed IS NULL AND (CAST($3 AS TEXT) IS NULL OR s.id = $3)";
        for row in self.all(sql, args![LEFT, moment, opt(on)]).await? {
            let touches = |b: Booking| b.busy_until > window.starts && b.window.starts < window.ends;
            if as_it_left(&row)?.filter(|b| b.state != State::Offered).is_some_and(touches) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Two live bookings of one place that overlap: always none, unless somebody changed the database by hand.
    pub async fn overlaps(&mut self) -> Result<Vec<(BookingId, BookingId)>, Problem> {
        let sql = concat!(
            "SELECT a.id AS one, b.id AS two FROM bookings AS a JOIN bookings AS b ON a.server = b.server \
             AND a.place = b.place AND a.id < b.id AND a.starts < b.busy_until AND b.starts < a.busy_until \
             WHERE a.state IN ",
            states!(is_live),
            " AND b.state IN ",
            states!(is_live)
        );
        let rows = self.all(sql, vec![]).await?;
        rows.iter().map(|r| Ok((r.parse("one")?, r.parse("two")?))).collect()
    }
}
