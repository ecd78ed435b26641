use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, AppState, Form, Refused, Session},
    Civil,
    failure::Trouble,
    reasons::{Piece, reasons},
    visit::{Visit, go},
    week::shift,
};
use crate::{
    core::{Class, Code, Problem},
    hub::{
        desk::{ClassRequest, StudentWishes},
        domain::{ClassPlan, ClassRow, Window, Wish},
    },
    profile::Layout,
};

/// What the form of a class plan sends; everything is text until it is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ClassForm {
    pub course: String,
    pub layout: String,
    pub minutes: String,
    pub slots: String,
    pub start: String,
    pub end: String,
    /// A line for each person: `amy: 2026-11-24T14:00/18:00, 2026-11-25T09:00/12:00`, best first.
    pub wishes: String,
    /// Why it goes past the rules; empty is none.
    pub reason: String,
    /// `plan` or `book`.
    pub act: String,
    pub once: String,
    /// Which table was on the page: only that one is booked.
    pub seen: String,
}

/// The page of a class plan: the form, and the table once it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ClassView {
    pub form: ClassForm,
    pub courses: Vec<String>,
    pub layouts: Vec<String>,
    pub rows: Vec<Line>,
    pub sum: String,
    /// Whether another table was to be booked than there is now.
    pub changed: bool,
    pub trouble: Option<Trouble>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    pub round: u32,
    pub person: String,
    pub when: Option<String>,
    pub utc: Option<String>,
    pub server: Option<String>,
    pub why: Vec<Piece>,
}

impl ClassForm {
    fn request(&self, civil: &Civil) -> Result<ClassRequest, Problem> {
        let bad = |why: String| Problem::new(Code::HubInvalid, why);
        let number =
            |text: &str, what: &str| text.trim().parse::<u32>().map_err(|_| bad(format!("{what} is no number")));
        let (start, end) = (civil.read_field(self.start.trim())?, civil.read_field(self.end.trim())?);
        Ok(ClassRequest {
            course: self.course.trim().parse().map_err(bad)?,
            layout: self.layout.trim().parse().map_err(bad)?,
            minutes: number(&self.minutes, "the length")?,
            slots: number(&self.slots, "how many slots")?,
            within: Window::new(start, end).map_err(|why| Problem::new(Code::BookWindow, why))?,
            wishes: wishes(&self.wishes, civil)?,
            reason: Some(self.reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
            seen: (self.act == "book").then(|| self.seen.clone()),
        })
    }
}

fn wishes(text: &str, civil: &Civil) -> Result<Vec<StudentWishes>, Problem> {
    let mut all = vec![];
    for (n, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let at = |problem: Problem| Problem { what: format!("line {}: {}", n + 1, problem.what), ..problem };
        let bad = |why: String| at(Problem::new(Code::HubInvalid, why));
        let (login, rest) =
            line.split_once(':').ok_or_else(|| bad("it does not begin with a login and a colon".into()))?;
        let person = login.trim().parse().map_err(bad)?;
        let each = rest.split(',').map(|wish| wish_of(wish.trim(), civil).map_err(at));
        all.push(StudentWishes { person, wishes: each.collect::<Result<_, _>>()? });
    }
    Ok(all)
}

/// Reads `2026-11-24T14:00/18:00`; an end on another day is written with its date.
fn wish_of(text: &str, civil: &Civil) -> Result<Wish, Problem> {
    let bad = || {
        let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        Problem::new(Code::BookWindow, format!("`{shown}` is not a wish as 2026-11-24T14:00/18:00"))
    };
    let (start, end) = text.split_once('/').ok_or_else(bad)?;
    let (date, _) = start.split_once('T').ok_or_else(bad)?;
    let end = if end.contains('T') { end.trim().to_owned() } else { format!("{date}T{}", end.trim()) };
    let window = Window::new(civil.read_field(start.trim())?, civil.read_field(&end)?);
    Ok(Wish { within: window.map_err(|why| Problem::new(Code::BookWindow, why))? })
}

pub(super) fn line(row: &ClassRow, civil: &Civil) -> Line {
    let slot = row.slot();
    Line {
        round: row.round,
        person: row.person.to_string(),
        when: slot.map(|(_, window)| civil.span(window)),
        utc: slot.map(|(_, window)| civil.utc(window)),
        server: slot.map(|(server, _)| server.to_string()),
        why: reasons(&row.why, civil.lang),
    }
}

async fn visit_of(state: &AppState, session: &Session, headers: &HeaderMap) -> Result<Visit, Problem> {
    let visit = Visit::of(state, session, headers, "/teacher/class").await?;
    if visit.frame.teacher { Ok(visit) } else { Err(Problem::new(Code::HubDenied, "only a teacher may do this")) }
}

async fn view(state: &AppState, visit: &Visit, form: ClassForm) -> Result<ClassView, Problem> {
    let courses = state.desk.courses(&visit.caller, visit.now).await?;
    let servers = state.desk.servers(&visit.caller, visit.now).await?;
    let held = |layout: &Layout| servers.iter().any(|s| s.can_hold(*layout));
    Ok(ClassView {
        form: ClassForm { once: super::wish::once(), ..form },
        courses: courses.iter().map(|c| c.id.to_string()).collect(),
        layouts: Layout::SHIPPED.into_iter().filter(held).map(|l| l.to_string()).collect(),
        ..ClassView::default()
    })
}

/// `GET /teacher/class`: the form, for the seven days from tomorrow.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let visit = visit_of(&state, &session, &headers).await?;
    let (civil, tomorrow) = (&visit.civil, shift(visit.civil.zone.date(visit.now), 1));
    let midnight = |days| civil.field(civil.zone.nearest(shift(tomorrow, days).at(0, 0, 0, 0)));
    let form = ClassForm {
        minutes: "120".into(),
        slots: "1".into(),
        start: midnight(0),
        end: midnight(7),
        ..ClassForm::default()
    };
    let view = view(&state, &visit, form).await?;
    visit.page("class.html", &view)
}

/// `POST /teacher/class`: shows the table, or books the one that was shown.
pub(super) async fn plan(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(session, form): Form<ClassForm>,
) -> Answer<Response> {
    let visit = visit_of(&state, &session, &headers).await?;
    let mut view = view(&state, &visit, form.clone()).await?;
    match table(&state, &visit, &form).await {
        Ok(None) => Ok(go("/")),
        Ok(Some(plan)) => {
            let (given, wished) = (plan.given.to_string(), plan.wished.to_string());
            view.form.seen.clone_from(&plan.stamp);
            view.changed = form.act == "book";
            view.sum = visit.words().say("class_sum", &[("given", &given), ("wished", &wished)]);
            view.rows = plan.rows.iter().map(|row| line(row, &visit.civil)).collect();
            visit.page("class.html", &view)
        }
        Err(problem) if matches!(problem.code.class(), Class::Connect | Class::Internal) => Err(problem.into()),
        Err(problem) => {
            let status = Refused::from(problem.clone()).status();
            view.trouble = Some(Trouble::new(&problem, status.as_u16(), &visit.civil));
            visit.page_with(status, "class.html", &view)
        }
    }
}

/// The table to show; none when it was booked, which only the one that the teacher has seen is.
async fn table(state: &AppState, visit: &Visit, form: &ClassForm) -> Result<Option<ClassPlan>, Problem> {
    let want = form.request(&visit.civil)?;
    if want.seen.is_some() {
        let once = Some(form.once.as_str()).filter(|o| !o.is_empty());
        match state.desk.book_class(&visit.caller, visit.now, once, &want).await {
            Err(problem) if problem.code == Code::BookStale => {}
            outcome => return outcome.map(|_| None),
        }
    }
    state.desk.plan_class(&visit.caller, visit.now, &want).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::http::pages::Lang;

    #[test]
    fn wishes_are_read_in_the_viewers_zone_or_their_line_is_named() {
        let civil = Civil { zone: "Europe/Berlin".parse().unwrap(), lang: Lang::En };
        let text = "amy: 2026-11-24T14:00/18:00, 2026-11-25T22:00/2026-11-26T02:00\n\n  bob:2026-11-24T08:00/09:00\n";
        let found = wishes(text, &civil).unwrap();
        assert_eq!(
            found.iter().map(|w| (w.person.as_str(), w.wishes.len())).collect::<Vec<_>>(),
            [("amy", 2), ("bob", 1)]
        );
        let at = |text: &str| text.parse().unwrap();
        let wished = |from: &str, to: &str| Wish { within: Window { starts: at(from), ends: at(to) } };
        assert_eq!(found[0].wishes[0], wished("2026-11-24T13:00:00Z", "2026-11-24T17:00:00Z"));
        assert_eq!(found[0].wishes[1], wished("2026-11-25T21:00:00Z", "2026-11-26T01:00:00Z"));
        assert!(wishes("", &civil).unwrap().is_empty());
        for (bad, code) in [
            ("amy", Code::HubInvalid),
            ("AMY: 2026-11-24T14:00/18:00", Code::HubInvalid),
            ("amy: tomorrow", Code::BookWindow),
            ("amy: 2026-11-24T18:00/14:00", Code::BookWindow),
            ("amy: 2026-11-24T14:00/", Code::BookWindow),
            ("amy: 2027-03-28T02:30/04:00", Code::BookGap),
        ] {
            let problem = wishes(&format!("bob: 2026-11-24T08:00/09:00\n{bad}"), &civil).unwrap_err();
            assert_eq!((problem.code, problem.what.starts_with("line 2: ")), (code, true), "{bad}: {problem}");
        }
    }
}
