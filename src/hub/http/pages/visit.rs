use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiQuery, AppState, Refused, Session, session::session_of},
    Civil, Lang, Words, draw,
};
use crate::{
    core::{Class, Code, Problem},
    hub::{
        desk::Caller,
        domain::{Course, Epoch, Group, Person, Zone},
    },
};

/// The cookie that keeps the language.
const LANG_COOKIE: &str = "kubecamp_lang";
/// The cookie that keeps the zone, where it is not the person's own.
const ZONE_COOKIE: &str = "kubecamp_zone";

/// What every page shows around its own part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frame {
    /// HTML's `lang`.
    pub lang: &'static str,
    /// The languages: code, name, HTML's `lang`, whether it is this one.
    pub langs: Vec<(&'static str, &'static str, &'static str, bool)>,
    /// The viewer's zone.
    pub zone: String,
    /// That times are in it.
    pub zone_is: String,
    /// The viewer's name; none before signing in.
    pub name: Option<String>,
    /// Whether there is a teacher's view.
    pub teacher: bool,
    /// Whether servers can be cleared here.
    pub admin: bool,
    /// What forms carry.
    pub csrf: String,
    /// This page, to come back to.
    pub here: String,
    /// The same as a part of an address.
    pub back: String,
    /// The moment, seconds.
    pub now: i64,
}

/// Somebody who looks at a page, and how things are written for them.
#[derive(Debug)]
pub(super) struct Visit {
    pub caller: Caller,
    pub person: Option<Person>,
    pub civil: Civil,
    pub now: Epoch,
    pub frame: Frame,
}

/// A cookie's value.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = lines.flat_map(|l| l.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// The language of a request.
pub fn lang_of(headers: &HeaderMap) -> Lang {
    let accept = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok());
    Lang::choose(cookie(headers, LANG_COOKIE).as_deref(), accept)
}

/// The zone that a browser keeps.
fn kept_zone(headers: &HeaderMap) -> Option<Zone> {
    cookie(headers, ZONE_COOKIE).and_then(|zone| zone.parse().ok())
}

/// The zone of the person whose session a request has.
async fn own_zone(state: &AppState, headers: &HeaderMap) -> Option<Zone> {
    let session = session_of(headers, state).await.ok()?;
    let person = state.desk.person(&session.caller, state.now(), session.caller.person()?).await.ok()?;
    Some(person.zone)
}

/// How things are written for whoever is refused: it may be before anybody has looked who it is.
pub async fn reader_of(state: &AppState, headers: &HeaderMap, refused: &Refused) -> Civil {
    // A hub in trouble is not asked once more, and not for who asks too much.
    let ask = !matches!(refused.problem().code.class(), Class::Busy | Class::Connect | Class::Internal);
    let zone = match kept_zone(headers) {
        None if ask => own_zone(state, headers).await,
        kept => kept,
    };
    Civil { zone: zone.unwrap_or_else(Zone::utc), lang: lang_of(headers) }
}

fn zone_is(lang: Lang, zone: &Zone) -> String {
    Words::of(lang).say("zone_is", &[("zone", zone.name())])
}

impl Frame {
    pub(super) fn open(lang: Lang, here: &str, now: Epoch) -> Self {
        Self {
            lang: lang.tag(),
            langs: Lang::ALL.map(|l| (l.as_str(), l.name(), l.tag(), l == lang)).to_vec(),
            zone: Zone::utc().to_string(),
            zone_is: zone_is(lang, &Zone::utc()),
            name: None,
            teacher: false,
            admin: false,
            csrf: String::new(),
            here: here.to_owned(),
            back: escaped(here),
            now: now.0,
        }
    }

    /// As [`Frame::open`], where the viewer's zone is known.
    pub(super) fn of(civil: &Civil, here: &str, now: Epoch) -> Self {
        let (zone, zone_is) = (civil.zone.to_string(), zone_is(civil.lang, &civil.zone));
        Self { zone, zone_is, ..Self::open(civil.lang, here, now) }
    }
}

impl Visit {
    pub async fn of(state: &AppState, session: &Session, headers: &HeaderMap, here: &str) -> Result<Self, Problem> {
        let (now, caller) = (state.now(), session.caller.clone());
        let person = match caller.person() {
            Some(id) => Some(state.desk.person(&caller, now, id).await?),
            None => None,
        };
        let own = || person.as_ref().map(|p| p.zone.clone());
        let zone = kept_zone(headers).or_else(own).unwrap_or_else(Zone::utc);
        let civil = Civil { zone, lang: lang_of(headers) };
        let frame = Frame {
            name: person.as_ref().map(|p| p.name.clone()),
            teacher: caller.is_teacher(),
            admin: caller.is_admin(),
            csrf: session.csrf.clone(),
            ..Frame::of(&civil, here, now)
        };
        Ok(Self { caller, person, civil, now, frame })
    }

    pub fn words(&self) -> &'static Words {
        Words::of(self.civil.lang)
    }

    /// A page of this visit.
    pub fn page(&self, name: &str, values: &impl Serialize) -> Answer<Response> {
        self.page_with(StatusCode::OK, name, values)
    }

    pub fn page_with(&self, status: StatusCode, name: &str, values: &impl Serialize) -> Answer<Response> {
        Ok((status, html(draw::draw(name, self.words(), &self.frame, values)?)).into_response())
    }

    /// The courses in which the viewer may book, that of their first group first.
    ///
    /// A teacher books for others, and so in any; who is in none sees the hours of all.
    pub async fn courses(&self, state: &AppState) -> Result<Vec<Course>, Problem> {
        let mut courses = state.desk.courses(&self.caller, self.now).await?;
        let groups = state.desk.groups(&self.caller, self.now).await?;
        let Some(person) = &self.person else { return Ok(courses) };
        let mine = |c: &Course| groups.iter().any(|g| g.course == c.id && person.groups.contains(&g.id));
        if !self.frame.teacher && courses.iter().any(mine) {
            courses.retain(mine);
        }
        let first = course_of(person, &groups, &courses).map(|c| c.id.clone());
        courses.sort_by_key(|c| Some(&c.id) != first.as_ref());
        Ok(courses)
    }
}

/// The course of somebody's first group.
fn course_of<'a>(person: &Person, groups: &[Group], courses: &'a [Course]) -> Option<&'a Course> {
    let group = groups.iter().find(|g| person.groups.contains(&g.id))?;
    courses.iter().find(|c| c.id == group.course)
}

/// A page as an answer; never kept by a cache, it is for one person.
pub(super) fn html(text: String) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::VARY, "Cookie, Accept-Language")], Html(text)).into_response()
}

/// A path inside of an address's query.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Sends a browser on after a form.
pub(super) fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// A path of this site; anything else is the first page, so that no link leads elsewhere through us.
fn local(path: &str) -> &str {
    let good = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() < 500
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if good { path } else { "/" }
}

#[derive(Deserialize)]
pub(super) struct Settings {
    lang: Option<String>,
    zone: Option<String>,
    back: Option<String>,
}

/// Keeps a language or zone in a cookie for a year, and goes back.
pub(super) async fn settings(ApiQuery(want): ApiQuery<Settings>) -> Answer<Response> {
    let mut response = go(local(want.back.as_deref().unwrap_or("/")));
    let lang = want.lang.as_deref().and_then(Lang::known).map(|l| (LANG_COOKIE, l.as_str().to_owned()));
    let zone = match want.zone.as_deref().map(str::trim).filter(|zone| !zone.is_empty()) {
        Some(named) => Some((ZONE_COOKIE, named.parse::<Zone>().map_err(|_| no_zone(named))?.to_string())),
        None => None,
    };
    for (name, value) in lang.into_iter().chain(zone) {
        let text = format!("{name}={value}; Path=/; SameSite=Lax; HttpOnly; Max-Age=31536000");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    Ok(response)
}

fn no_zone(named: &str) -> Problem {
    let shown: String = named.chars().take(40).flat_map(char::escape_default).collect();
    Problem::new(Code::HubInvalid, format!("there is no time zone {shown}"))
        .hint("Write it as Europe/Berlin, Asia/Shanghai or UTC.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_elsewhere() {
        for good in ["/", "/?from=2026-11-23", "/booking/b1"] {
            assert_eq!(local(good), good);
        }
        for bad in
            ["//evil.example", "https://evil.example", "/\\evil.example", "", "/\r\nSet-Cookie: a=b", "javascript:x"]
        {
            assert_eq!(local(bad), "/", "{bad:?}");
        }
    }
}
