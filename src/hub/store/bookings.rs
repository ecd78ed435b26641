use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    record::NewAudit,
    states::states,
    tx::{Row, Tx},
    value::args,
};
use crate::{
    core::{Code, Problem},
    hub::domain::{Booking, BookingId, Epoch, GroupId, PersonId, SeriesId, ServerId, State, Use, Who, Window},
};

/// That a booking left somebody or a server, in the audit.
pub(super) const LEFT: &str = "booking.left";

/// Which bookings are wanted; a field that is none does not narrow.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Of this person.
    pub person: Option<PersonId>,
    /// On this server.
    pub server: Option<ServerId>,
    /// Of this group.
    pub group: Option<GroupId>,
    /// In this state.
    pub state: Option<State>,
    /// That touch this window, with the buffer.
    pub within: Option<Window>,
    /// Only those that hold a place or wait: not what is over, be it quarantined.
    pub open: bool,
}

fn booking(row: &Row) -> Result<Booking, Problem> {
    let place = row.opt_int("place")?;
    Ok(Booking {
        id: row.parse("id")?,
        server: row.opt_parse("server")?,
        place: place.map(|p| u32::try_from(p).unwrap_or(0)),
        person: row.parse("person")?,
        course: row.parse("course")?,
        group: row.opt_parse("grp")?,
        layout: row.parse("layout")?,
        window: Window { starts: row.epoch("starts")?, ends: row.epoch("ends")? },
        busy_until: row.epoch("busy_until")?,
        state: row.parse("state")?,
        since: row.epoch("since")?,
        version: row.int("version")?,
        created: row.epoch("created")?,
        updated: row.epoch("updated")?,
        offer_until: row.opt_epoch("offer_until")?,
        came: row.opt_epoch("came")?,
        charged: row.int("charged")?,
        lapses: row.int("lapses")?,
        series: row.opt_parse("series")?,
        wished: row.opt_parse("wished")?,
        note: row.opt_text("note")?,
        refused: row.opt_text("refused")?,
        stranded: row.opt_epoch("stranded")?,
        moves: row.int("moves")?,
        labels: row.json("labels")?,
        ended_by: row.opt_word("ended_by")?,
    })
}

/// The booking that a note of [`LEFT`] is about; none where it is written as no booking is any more, long ago.
pub(super) fn as_it_left(row: &Row) -> Result<Option<Booking>, Problem> {
    let detail: Value = row.json("detail")?;
    Ok(serde_json::from_value(detail["booking"].clone()).ok())
}

/// A value that may be none, as a statement takes it.
pub(super) fn opt<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

/// There is no booking of this id: a recurrence's may be meant, which begins with another letter.
fn unknown(id: &BookingId) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is no booking {id}")).hint(if id.as_str().starts_with('s') {
        "An id that begins with s is a recurrence's: kubecamp book ls -o wide shows its bookings, by SERIES."
    } else {
        "kubecamp book ls shows the ids of yours, with --past of those that are over too."
    })
}

/// Refuses a step that the table of states does not have for `who`, and any change of what is over.
fn check_step(before: &Booking, to: State, who: Who) -> Result<(), Problem> {
    let (id, state) = (&before.id, before.state);
    if (state == to && !state.is_final()) || state.may_become_by(to, who) {
        return Ok(());
    }
    let what = match state == to {
        true => format!("booking {id} is {state}"),
        false => format!("booking {id} is {state} and cannot become {to}"),
    };
    Err(Problem::new(Code::BookState, what))
}

impl Tx {
    /// Adds a booking in its first state.
    pub async fn add_booking(&mut self, new: &Booking, action: &str, reason: Option<String>) -> Result<(), Problem> {
        if !new.state.is_first() || new.version != 1 {
            return Err(Problem::new(Code::Internal, format!("a booking cannot begin as {}", new.state)));
        }
        let sql = "INSERT INTO bookings (id, server, place, person, course, grp, layout, starts, ends, busy_until, state, \
                   since, version, created, updated, offer_until, came, charged, lapses, series, note, wished, labels) VALUES \
                   ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
                   $23)";
        let values = args![
            new.id.to_string(),
            opt(new.server.as_ref()),
            new.place.map(i64::from),
            new.person.to_string(),
            new.course.to_string(),
            opt(new.group.as_ref()),
            new.layout.to_string(),
            new.window.starts,
            new.window.ends,
            new.busy_until,
            new.state.as_str(),
            new.since,
            new.version,
            new.created,
            new.updated,
            new.offer_until,
            new.came,
            new.charged,
            new.lapses,
            opt(new.series.as_ref()),
            new.note.clone(),
            opt(new.wished.as_ref()),
            json!(new.labels).to_string(),
        ];
        self.run(sql, values).await?;
        self.written(None, new, action, reason).await
    }

    /// Changes a booking: `next` is `before` with other values; state, version and times of change are kept here.
    ///
    /// One row changes or none: who was overtaken gets `KC-BOOK-STALE`. A step that the table of states does not
    /// have is `KC-BOOK-STATE`.
    pub async fn change_booking(
        &mut self,
        before: &Booking,
        mut next: Booking,
        who: Who,
        action: &str,
        reason: Option<String>,
    ) -> Result<Booking, Problem> {
        check_step(before, next.state, who)?;
        if next.state != before.state {
            next.since = self.now;
        }
        next.version = before.version + 1;
        next.updated = self.now;
        self.overwrite(before, &next).await?;
        self.written(Some(before), &next, action, reason).await?;
        Ok(next)
    }

    /// Writes a booking over its row, unless that is not as it was `before` any more.
    async fn overwrite(&mut self, before: &Booking, next: &Booking) -> Result<(), Problem> {
        let sql = "UPDATE bookings SET server = $4, place = $5, person = $6, grp = $7, starts = $8, ends = $9, \
                   busy_until = $10, state = $11, since = $12, version = $13, updated = $14, offer_until = $15, \
                   came = $16, charged = $17, lapses = $18, note = $19, course = $20, \
                   refused = $21, stranded = $22, moves = $23, ended_by = $24 \
                   WHERE id = $1 AND state = $2 AND version = $3";
        let values = args![
            before.id.to_string(),
            before.state.as_str(),
            before.version,
            opt(next.server.as_ref()),
            next.place.map(i64::from),
            next.person.to_string(),
            opt(next.group.as_ref()),
            next.window.starts,
            next.window.ends,
            next.busy_until,
            next.state.as_str(),
            next.since,
            next.version,
            next.updated,
            next.offer_until,
            next.came,
            next.charged,
            next.lapses,
            next.note.clone(),
            next.course.to_string(),
            next.refused.clone(),
            next.stranded,
            next.moves,
            next.ended_by.map(|who| who.as_str().to_owned()),
        ];
        if self.run(sql, values).await? != 1 {
            return Err(Problem::new(Code::BookStale, format!("booking {} was changed in between", before.id)));
        }
        Ok(())
    }

    async fn written(
        &mut self,
        before: Option<&Booking>,
        after: &Booking,
        action: &str,
        reason: Option<String>,
    ) -> Result<(), Problem> {
        let subject = format!("booking:{}", after.id);
        if let Some(before) = before.filter(|b| b.person != after.person || b.server != after.server) {
            self.note_leaving(before, after);
        }
        let mut detail = json!({
            "person": after.person, "server": after.server, "place": after.place,
            "starts": after.window.starts, "ends": after.window.ends,
        });
        if let Some(before) = before.filter(|b| b.person != after.person) {
            detail["from_person"] = json!(before.person);
        }
        if let Some(before) = before.filter(|b| b.server != after.server) {
            detail["from_server"] = json!(before.server);
        }
        self.audit.push(NewAudit {
            action: action.to_owned(),
            subject: subject.clone(),
            from: before.map(|b| b.state.to_string()),
            to: Some(after.state.to_string()),
            version: Some(after.version),
            reason,
            detail,
        });
        let payload = serde_json::to_value(after).unwrap_or_default();
        let kind = format!("booking.{}", after.state);
        self.tell(&kind, subject, Some(&after.person), after.server.as_ref(), payload);
        let servers = [before.and_then(|b| b.server.clone()), after.server.clone()];
        for (n, server) in servers.iter().enumerate() {
            if let Some(server) = server.as_ref().filter(|_| n == 0 || servers[0] != servers[1]) {
                self.run("UPDATE servers SET revision = revision + 1 WHERE id = $1", args![server.to_string()]).await?;
            }
        }
        Ok(())
    }

    /// Notes whom and which server a booking leaves, as it was for them: their calendars have it still.
    fn note_leaving(&mut self, before: &Booking, after: &Booking) {
        let (version, updated) = (after.version, after.updated);
        let gone = Booking { version, updated, note: None, refused: None, ..before.clone() };
        let detail = json!({ "booking": gone });
        if before.person != after.person {
            self.note(LEFT, format!("person:{}", before.person), None, detail.clone());
        }
        if let Some(server) = before.server.as_ref().filter(|_| before.server != after.server) {
            self.note(LEFT, format!("server:{server}"), None, detail);
        }
    }

    /// What has left a person or a server, `person:LOGIN` or `server:NAME`, each booking as it was when it last did so.
    pub async fn left(&mut self, subject: &str) -> Result<BTreeMap<BookingId, Booking>, Problem> {
        let sql = "SELECT detail FROM audit WHERE subject = $1 AND action = $2 ORDER BY id";
        let mut found = BTreeMap::new();
        for row in self.all(sql, args![subject, LEFT]).await? {
            if let Some(booking) = as_it_left(&row)? {
                found.insert(booking.id.clone(), booking);
            }
        }
        Ok(found)
    }

    /// A booking by its id.
    pub async fn booking(&mut self, id: &BookingId) -> Result<Booking, Problem> {
        let row = self.one("SELECT * FROM bookings WHERE id = $1", args![id.to_string()]).await?;
        row.map_or_else(|| Err(unknown(id)), |r| booking(&r))
    }

    /// Bookings by start, then id.
    pub async fn bookings(&mut self, want: &Listing) -> Result<Vec<Booking>, Problem> {
        macro_rules! narrowed {
            ($by:literal) => {
                concat!(
                    "SELECT * FROM bookings WHERE ",
                    $by,
                    " AND (CAST($1 AS TEXT) IS NULL OR person = $1) AND (CAST($2 AS TEXT) IS NULL OR server = $2) \
                     AND (CAST($3 AS TEXT) IS NULL OR grp = $3) AND (CAST($4 AS TEXT) IS NULL OR state = $4) \
                     AND busy_until > $5 AND starts < $6 AND ($7 = 0 OR state NOT IN ",
                    states!(is_final),
                    ") ORDER BY starts, id"
                )
            };
        }
        // Each index is used only where its column is compared for certain.
        let sql = match want {
            Listing { person: Some(_), .. } => narrowed!("person = $1"),
            Listing { server: Some(_), .. } => narrowed!("server = $2"),
            Listing { group: Some(_), .. } => narrowed!("grp = $3"),
            Listing { state: Some(_), .. } => narrowed!("state = $4"),
            _ => narrowed!("1 = 1"),
        };
        let within = want.within.unwrap_or(Window { starts: Epoch(-1), ends: Epoch(i64::MAX) });
        let values = args![
            opt(want.person.as_ref()),
            opt(want.server.as_ref()),
            opt(want.group.as_ref()),
            want.state.map(|s| s.as_str().to_owned()),
            within.starts,
            within.ends,
            i64::from(want.open),
        ];
        self.all(sql, values).await?.iter().map(booking).collect()
    }

    /// Whether there is a booking of a server, which may be removed since.
    pub async fn ever_booked(&mut self, server: &ServerId) -> Result<bool, Problem> {
        let sql = "SELECT 1 AS n FROM bookings WHERE server = $1 LIMIT 1";
        Ok(self.one(sql, args![server.to_string()]).await?.is_some())
    }

    /// Bookings that have not begun and whose server may not take them, by start: it is not healthy, is closed for work
    /// some time from now on, its agent refused, or their holder was told so.
    ///
    /// Which of them are in truth is for the rules to say.
    pub async fn doubtful(&mut self) -> Result<Vec<Booking>, Problem> {
        let sql = concat!(
            "SELECT * FROM bookings WHERE state IN ",
            states!(is_unbegun),
            " AND ends > $1 AND (refused IS NOT NULL OR stranded IS NOT NULL \
             OR server IN (SELECT id FROM servers WHERE health <> 'healthy') \
             OR server IN (SELECT server FROM maintenance WHERE ends > $1)) ORDER BY starts, created, id"
        );
        let now = self.now;
        self.all(sql, args![now]).await?.iter().map(booking).collect()
    }

    /// What people whose account is closed hold or wait for and nobody has ended yet, by start.
    ///
    /// It is looked for person by person, as few are out: nobody else's bookings are read.
    pub async fn of_closed(&mut self) -> Result<Vec<Booking>, Problem> {
        let sql = concat!(
            "SELECT b.* FROM people AS p CROSS JOIN bookings AS b WHERE p.active = 0 AND b.person = p.id \
             AND b.starts > $1 AND b.ends > $2 AND b.ended_by IS NULL AND b.state IN ",
            states!(is_endable),
            " ORDER BY b.starts, b.id"
        );
        // No slot is longer than a week.
        let values = args![self.now - 8 * 86_400, self.now];
        self.all(sql, values).await?.iter().map(booking).collect()
    }

    /// The bookings of a recurrence, by start.
    pub async fn series(&mut self, id: &SeriesId) -> Result<Vec<Booking>, Problem> {
        let sql = "SELECT * FROM bookings WHERE series = $1 ORDER BY starts, id";
        self.all(sql, args![id.to_string()]).await?.iter().map(booking).collect()
    }

    /// When somebody holds slots other than `except` that touch a window, by start; a wait is none.
    pub async fn windows_of(
        &mut self,
        person: &PersonId,
        within: Window,
        except: Option<&BookingId>,
    ) -> Result<Vec<Window>, Problem> {
        let sql = concat!(
            "SELECT starts, ends FROM bookings WHERE person = $1 AND ends > $2 AND starts < $3 AND state IN ",
            states!(is_live),
            " AND (CAST($4 AS TEXT) IS NULL OR id <> $4) ORDER BY starts"
        );
        let rows = self.all(sql, args![person.to_string(), within.starts, within.ends, opt(except)]).await?;
        rows.iter().map(|row| Ok(Window { starts: row.epoch("starts")?, ends: row.epoch("ends")? })).collect()
    }

    /// Who holds a booking on a server that begins at a moment or after it.
    pub async fn holders_from(&mut self, server: &ServerId, from: Epoch) -> Result<BTreeSet<PersonId>, Problem> {
        let sql = concat!(
            "SELECT DISTINCT person FROM bookings WHERE server = $1 AND starts >= $2 AND state IN ",
            states!(is_ahead)
        );
        self.all(sql, args![server.to_string(), from]).await?.iter().map(|row| row.parse("person")).collect()
    }

    /// How many slots of somebody have not begun yet and hold a place; those of one recurrence are one.
    ///
    /// Neither the booking `except` nor those of `series` are counted.
    pub async fn ahead_of(
        &mut self,
        person: &PersonId,
        from: Epoch,
        except: Option<&BookingId>,
        series: Option<&SeriesId>,
    ) -> Result<i64, Problem> {
        let sql = concat!(
            "SELECT count(DISTINCT coalesce(series, id)) AS n FROM bookings WHERE person = $1 AND busy_until > $2 \
             AND state IN ",
            states!(is_ahead),
            " AND (CAST($3 AS TEXT) IS NULL OR id <> $3) AND (CAST($4 AS TEXT) IS NULL OR series IS NULL OR series <> $4)"
        );
        let row = self.one(sql, args![person.to_string(), from, opt(except), opt(series)]).await?;
        row.map_or(Ok(0), |row| row.int("n"))
    }

    /// What counts against quotas of a person, in and around a window.
    pub async fn uses_of_person(
        &mut self,
        person: &PersonId,
        window: Window,
    ) -> Result<Vec<(BookingId, Use)>, Problem> {
        let sql = "SELECT id, starts, state, charged FROM bookings WHERE person = $1 AND ends > $2 AND starts < $3";
        self.uses(sql, person.as_str(), window).await
    }

    /// What counts against quotas of a group, in and around a window.
    pub async fn uses_of_group(&mut self, group: &GroupId, window: Window) -> Result<Vec<(BookingId, Use)>, Problem> {
        let sql = "SELECT id, starts, state, charged FROM bookings WHERE grp = $1 AND ends > $2 AND starts < $3";
        self.uses(sql, group.as_str(), window).await
    }

    async fn uses(&mut self, sql: &'static str, who: &str, window: Window) -> Result<Vec<(BookingId, Use)>, Problem> {
        let rows = self.all(sql, args![who, window.starts, window.ends]).await?;
        let mut uses = vec![];
        for row in &rows {
            let state: State = row.parse("state")?;
            if state.counts() {
                uses.push((row.parse("id")?, Use { starts: row.epoch("starts")?, seconds: row.int("charged")? }));
            }
        }
        Ok(uses)
    }
}
