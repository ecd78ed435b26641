use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Caller, Desk,
    book::{Refusal, is_helped, place, standing_of},
    fit::{candidates, servers},
    transaction::transact_once,
    wish::BookRequest,
};
use crate::{
    core::Problem,
    hub::domain::{Booking, Epoch, Occurrence, SeriesId, Weekly},
};

/// A wish for the same slot each week.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeeklyRequest {
    /// The first week's wish; its window is overruled by `weekly`.
    pub first: BookRequest,
    /// When.
    pub weekly: Weekly,
}

/// A booking that was made, and what its holder should know.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Placed {
    /// The booking.
    pub booking: Booking,
    /// What clocks did to its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Desk {
    /// Books the same slot for several weeks, all or none.
    pub async fn book_weekly(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &WeeklyRequest,
    ) -> Result<Vec<Placed>, Refusal> {
        let weeks = wish.weekly.occurrences()?;
        let first = wish.first.stated()?.into_owned();
        let wish = &WeeklyRequest { first, weekly: wish.weekly.clone() };
        let series = SeriesId::from_random(rand::random());
        let from = weeks.iter().map(|week| week.window.starts).min().unwrap_or(now);
        // Nobody is asked for the sake of a wish that is not the caller's to make, or was answered already.
        if self.look(caller, now, key, &wish.first, from).await?.is_some() && wish.first.reason.is_none() {
            let person = wish.first.person.as_ref().or(caller.person());
            for week in &weeks {
                self.ask_who_waits(now, week.window, person, wish.first.server.as_ref()).await?;
            }
        }
        let outcome = async {
            transact_once!(self, caller, now, key, ("weekly", wish), |tx| {
                // All at first: whoever holds a person and a group never waits for a server.
                let standing = standing_of(&mut tx, caller, &wish.first).await?;
                let servers = servers(&mut tx, &wish.first).await?;
                for (server, _) in candidates(servers, &standing, &wish.first)? {
                    tx.lock_server(&server.id).await?;
                }
                let mut all = vec![];
                for week in &weeks {
                    let one = BookRequest { window: week.window, ..wish.first.clone() };
                    let (booking, _) = place(&mut tx, caller, &one, Some(series.clone())).await.map_err(|problem| {
                        let when = format!("in the week of {}; no week was booked", week.window.starts);
                        problem.detail([when]).detail(week.note.clone())
                    })?;
                    all.push(Placed { booking, note: week.note.clone() });
                }
                Ok(all)
            })
        };
        match outcome.await {
            Ok(all) => Ok(all),
            Err(problem) if is_helped(&problem) => Err(self.refuse_weekly(caller, now, wish, &weeks, problem).await),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Names every week that cannot be had, and slots near the first of them: who hears of one at a time tries for long.
    async fn refuse_weekly(
        &self,
        caller: &Caller,
        now: Epoch,
        wish: &WeeklyRequest,
        weeks: &[Occurrence],
        problem: Problem,
    ) -> Refusal {
        let from = weeks.iter().map(|week| week.window.starts).min().unwrap_or(now);
        let Ok(Some(mut look)) = self.look(caller, now, None, &wish.first, from).await else { return problem.into() };
        let (mut lines, mut alternatives) = (vec![], vec![]);
        for week in weeks {
            let one = BookRequest { window: week.window, ..wish.first.clone() };
            let why = look.obstacle(&one).await;
            let Some(why) = why.filter(is_helped) else { continue };
            if lines.is_empty() {
                alternatives = look.instead(&one).await.unwrap_or_default();
            }
            // Some begin with that time themselves.
            let says_when = why.what.starts_with(&week.window.starts.to_string());
            lines.push(if says_when { why.what } else { format!("{}: {}", week.window, why.what) });
        }
        // Whoever was in the way may be gone by now.
        let lines = if lines.is_empty() { problem.detail.clone() } else { lines };
        let hint =
            "Choose another time or fewer weeks: the weeks that cannot be had are named, with slots near the first.";
        let problem = Problem { detail: lines, ..problem }.hint(hint);
        Refusal { problem, alternatives }
    }
}
