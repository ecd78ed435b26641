use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiQuery, AppState, Session},
    Civil, Lang, Words,
    visit::{Visit, go},
};
use crate::hub::store::{AuditRow, Fact};

const PAGE: usize = 50;
/// What the desk hands out at once.
const MOST: i64 = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Want {
    page: Option<usize>,
    about: String,
    by: String,
}

/// The audit, newest first, a page at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Audit {
    pub rows: Vec<Line>,
    pub about: String,
    pub by: String,
    pub page: usize,
    pub newer: Option<String>,
    pub older: Option<String>,
    /// Whether there is more than pages show.
    pub cut: bool,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    pub id: i64,
    pub when: String,
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// A booking's page.
    pub href: Option<String>,
    /// Whom and what it concerns besides.
    pub detail: String,
    pub change: String,
    pub reason: Option<String>,
}

/// `GET /teacher/audit`.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
    ApiQuery(want): ApiQuery<Want>,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let visit = Visit::of(&state, &session, &headers, "/teacher/audit").await?;
    let some = |text: &str| Some(text.trim().to_owned()).filter(|t| !t.is_empty() && t.len() <= 100);
    let rows = state.desk.audit(&visit.caller, visit.now, some(&want.about), some(&want.by), MOST).await?;
    visit.page("audit.html", &Audit::new(&rows, &want, &visit))
}

impl Audit {
    fn new(rows: &[AuditRow], want: &Want, visit: &Visit) -> Self {
        let last = rows.len().saturating_sub(1) / PAGE + 1;
        let page = want.page.unwrap_or(1).clamp(1, last);
        let to = |n: usize| format!("/teacher/audit?page={n}&about={}&by={}", plain(&want.about), plain(&want.by));
        Self {
            rows: rows.iter().skip((page - 1) * PAGE).take(PAGE).map(|row| line(row, visit)).collect(),
            about: want.about.clone(),
            by: want.by.clone(),
            page,
            newer: (page > 1).then(|| to(page - 1)),
            older: (page < last).then(|| to(page + 1)),
            cut: rows.len() as i64 >= MOST && page == last,
        }
    }
}

/// Names of the audit need no escape in an address; whatever else was typed is left out of it.
fn plain(text: &str) -> String {
    text.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-:._".contains(*c)).collect()
}

fn line(row: &AuditRow, visit: &Visit) -> Line {
    let change = match (&row.from_state, &row.to_state) {
        (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
        (_, Some(to)) => to.clone(),
        _ => String::new(),
    };
    Line {
        id: row.id,
        when: visit.civil.moment(row.moment),
        actor: row.actor.clone(),
        action: row.action.clone(),
        subject: row.subject.clone(),
        href: row.subject.strip_prefix("booking:").map(|id| format!("/booking/{id}")),
        detail: told(row, &visit.civil),
        change,
        reason: row.reason.clone(),
    }
}

fn told(row: &AuditRow, civil: &Civil) -> String {
    let (words, between) = match civil.lang {
        Lang::En => (Words::of(Lang::En), ", "),
        Lang::Zh => (Words::of(Lang::Zh), "，"),
    };
    let said = |fact: Fact| match fact {
        Fact::Said(word, it) => words.say(word.key(), &[("it", &it)]),
        Fact::Time(window) => civil.span(window),
    };
    row.about().into_iter().map(said).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hub::{
        domain::{Epoch, Zone},
        store::Word,
    };

    #[test]
    fn what_a_row_concerns_is_told_in_both_languages() {
        for word in Word::ALL {
            assert_eq!(Words::of(Lang::En).get(word.key()), word.english());
        }
        let row = AuditRow {
            id: 1,
            moment: Epoch(0),
            actor: "person:tom".into(),
            action: "token.add".into(),
            subject: "token:t1".into(),
            from_state: None,
            to_state: None,
            version: None,
            reason: None,
            detail: json!({ "kind": "link", "person": "amy" }),
        };
        for (lang, want) in [(Lang::En, "sign-in link, for amy"), (Lang::Zh, "登录链接，对象：amy")] {
            assert_eq!(told(&row, &Civil { zone: Zone::utc(), lang }), want);
        }
        let given = json!({ "person": "bob", "from_person": "amy", "server": "one", "starts": 0, "ends": 3600 });
        let row = AuditRow { action: "booking.give".into(), detail: given, ..row };
        let told = told(&row, &Civil { zone: Zone::utc(), lang: Lang::En });
        assert_eq!(told, "for bob, from amy, on one, Thu 1 Jan, 00:00–01:00");
    }
}
