use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Caller, Desk, NewPerson,
    sign_in::{end_of_lost_keys, hash, lock_signed_in},
    transaction::transact_once,
};
use crate::{
    core::{At, Code, Problem, Problems, Secret, shell::printable},
    hub::{
        domain::{CourseId, Epoch, GroupId, Person, PersonId, Role, Zone},
        store::Tx,
    },
};

/// A roster as it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Roster<'a> {
    /// Of which course.
    pub course: &'a CourseId,
    /// How its text is called where a line of it is wrong.
    pub file: &'a str,
    /// Its lines.
    pub text: &'a str,
}

/// What a roster did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// How many people are new.
    pub added: usize,
    /// How many got another name, zone, group or keys.
    pub changed: usize,
    /// How many were as the roster says.
    pub same: usize,
}

const MOST_LINES: usize = 5000;

/// The fields of a line, in their usual order.
const FIELDS: [&str; 5] = ["login", "name", "group", "zone", "key"];

/// One student of a roster.
#[derive(Debug, PartialEq, Eq)]
pub struct RosterLine {
    /// Who.
    pub person: NewPerson,
    /// Their group.
    pub group: GroupId,
}

impl Desk {
    /// Imports students from a CSV: `login,name,group[,zone[,key]]`, with or without that as its first line, which may name
    /// the fields in another order.
    ///
    /// Every wrong line is reported with its number, and then nothing is imported. Importing the same again changes
    /// nothing; people who are not in it stay. It never changes a teacher or an admin. A repeated `key` gets the first
    /// answer. Where who asks is signed in with `token`, and that one has ended, nothing is imported either.
    pub async fn import_roster(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        roster: Roster<'_>,
        token: Option<&Secret>,
    ) -> Result<Imported, Problems> {
        caller.needs_teacher()?;
        let Roster { course, file, text } = roster;
        let (places, lines): (Vec<At>, Vec<RosterLine>) = placed(file, text)?.into_iter().unzip();
        let by = token.map(|token| hash(token.expose()));
        let outcome = async {
            transact_once!(self, caller, now, key, ("roster", course, text), |tx| {
                tx.course(course).await?;
                let people: Vec<&PersonId> = lines.iter().map(|line| &line.person.id).collect();
                tx.lock_servers_of_people(&people).await?;
                lock_signed_in(&mut tx, caller, by.as_deref(), &people).await?;
                take_in(&mut tx, course, &lines, &places).await
            })
        };
        outcome.await.map_err(Problems::from)
    }
}

/// Adds and changes who is in the lines; who is in another group of the course leaves it. Their servers are locked already, and
/// they themselves; groups come after them.
async fn take_in(tx: &mut Tx, course: &CourseId, lines: &[RosterLine], places: &[At]) -> Result<Imported, Problem> {
    let mut done = Imported { added: 0, changed: 0, same: 0 };
    let groups = tx.groups().await?.into_iter().filter(|group| group.course == *course);
    let of_course: BTreeSet<GroupId> = groups.map(|group| group.id).collect();
    let mut left = vec![];
    for (RosterLine { person, group }, place) in lines.iter().zip(places) {
        let there = tx.find_person(&person.id).await?;
        let next = row(person, there.as_ref());
        let Some(old) = there else {
            tx.add_person(&next).await?;
            done.added += 1;
            continue;
        };
        if old.role != Role::Student {
            let role = if old.role == Role::Admin { "an admin" } else { "a teacher" };
            let what = format!("{} is {role}; a roster changes students only", old.id);
            return Err(Problem::new(Code::HubRoster, what).at(place.clone()));
        }
        // In two groups of a course one has the quota of whichever is first by name, and that may be the old one.
        let others: Vec<GroupId> =
            old.groups.iter().filter(|of| *of != group && of_course.contains(*of)).cloned().collect();
        if old == next && old.groups.contains(group) && others.is_empty() {
            done.same += 1;
        } else {
            tx.change_person(&next).await?;
            end_of_lost_keys(tx, &old, &next, None).await?;
            done.changed += 1;
        }
        left.extend(others.into_iter().map(|of| (&person.id, of)));
    }
    for group in lines.iter().map(|line| &line.group).collect::<BTreeSet<_>>() {
        tx.put_group(group, course).await?;
    }
    for (person, group) in &left {
        tx.set_member(person, group, false).await?;
    }
    for RosterLine { person, group } in lines {
        tx.set_member(&person.id, group, true).await?;
    }
    Ok(done)
}

/// The row that a line asks for; what it leaves empty stays as it is.
fn row(new: &NewPerson, there: Option<&Person>) -> Person {
    Person {
        id: new.id.clone(),
        name: new.name.clone(),
        role: Role::Student,
        active: there.is_none_or(|p| p.active),
        zone: new.zone.clone().or_else(|| there.map(|p| p.zone.clone())).unwrap_or_else(Zone::utc),
        keys: if new.keys.is_empty() { there.map(|p| p.keys.clone()).unwrap_or_default() } else { new.keys.clone() },
        groups: there.map(|p| p.groups.clone()).unwrap_or_default(),
        version: there.map_or(1, |p| p.version),
    }
}

/// Reads a roster: its lines by login, each login once.
///
/// # Errors
/// `KC-HUB-ROSTER` for every wrong line, with its number.
pub fn read_roster(file: &str, text: &str) -> Result<Vec<RosterLine>, Problems> {
    Ok(placed(file, text)?.into_iter().map(|(_, line)| line).collect())
}

/// As [`read_roster`], with where each line stands.
fn placed(file: &str, text: &str) -> Result<Vec<(At, RosterLine)>, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut lines, mut wrong, mut seen, mut is_first) = (vec![], vec![], BTreeSet::new(), true);
    let mut columns = Columns::USUAL;
    if text.lines().count() > MOST_LINES {
        return Err(Problem::new(Code::HubRoster, format!("a roster has {MOST_LINES} lines at most")).into());
    }
    for (n, text) in text.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let place = At { file: file.to_owned(), line: n as u64 + 1, column: 1 };
        if std::mem::take(&mut is_first) {
            // Where it is wrong nobody knows what stands in the lines below.
            let named = Columns::named(text).map_err(|why| Problem::new(Code::HubRoster, why).at(place.clone()))?;
            if let Some(named) = named {
                columns = named;
                continue;
            }
        }
        match line(text, &columns) {
            Ok(line) if !seen.insert(line.person.id.clone()) => {
                let what = format!("{} stands in the roster twice", line.person.id);
                wrong.push(Problem::new(Code::HubRoster, what).at(place));
            }
            Ok(line) => lines.push((place, line)),
            Err(why) => wrong.push(Problem::new(Code::HubRoster, why).at(place)),
        }
    }
    if lines.is_empty() && wrong.is_empty() {
        wrong.push(Problem::new(Code::HubRoster, format!("{file} names nobody")));
    }
    Problems::check(wrong)?;
    lines.sort_by(|(_, a), (_, b)| a.person.id.cmp(&b.person.id));
    Ok(lines)
}

/// Where the fields stand in each line.
struct Columns {
    /// The place of each of [`FIELDS`].
    at: [Option<usize>; FIELDS.len()],
    /// How many fields a line has at most.
    most: usize,
}

impl Columns {
    const USUAL: Self = Self { at: [Some(0), Some(1), Some(2), Some(3), Some(4)], most: FIELDS.len() };

    /// What the line above all others says of them; none where it is somebody's. Programs write that one in quotes too, and
    /// nobody shall get an account by it.
    fn named(text: &str) -> Result<Option<Self>, String> {
        let names = fields(text).unwrap_or_default();
        let mut names: Vec<String> = names.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        // So the command's own help names it.
        for name in names.iter_mut().filter(|name| name.as_str() == "ssh key") {
            "key".clone_into(name);
        }
        let has = |name: &str| names.iter().any(|n| n == name);
        let is_somebody = !has("login") || names.len() < 2 || (names[0] != "login" && !has("name") && !has("group"));
        if is_somebody {
            return Ok(None);
        }
        let most = names.len();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        if names.len() <= FIELDS.len() && names.iter().zip(FIELDS).all(|(name, usual)| name == usual) {
            return Ok(Some(Self { most: most.max(FIELDS.len()), ..Self::USUAL }));
        }
        let mut at = [None; FIELDS.len()];
        for (place, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(field) = FIELDS.iter().position(|field| *field == name.as_str()) else {
                let name = printable(name);
                return Err(format!("it names a field `{name}`: use login, name, group, zone and key, in any order"));
            };
            if at[field].replace(place).is_some() {
                return Err(format!("it names the field `{name}` twice"));
            }
        }
        match FIELDS.iter().zip(at).take(3).find(|(_, at)| at.is_none()) {
            Some((missing, _)) => Err(format!("it names no field `{missing}`, which each line needs")),
            None => Ok(Some(Self { at, most })),
        }
    }

    fn named_at(&self, place: usize) -> Option<&'static str> {
        self.at.iter().position(|at| *at == Some(place)).map(|field| FIELDS[field])
    }
}

fn line(text: &str, columns: &Columns) -> Result<RosterLine, String> {
    let fields = fields(text)?;
    let field = |n: usize| columns.at[n].and_then(|at| fields.get(at)).map(|f| f.trim()).filter(|f| !f.is_empty());
    if fields.len() > columns.most {
        let named: Vec<&str> = (0..columns.most).filter_map(|place| columns.named_at(place)).collect();
        return Err(format!("it has {} fields: use {}", fields.len(), named.join(",")));
    }
    let (Some(login), Some(name), Some(group)) = (field(0), field(1), field(2)) else {
        let by = if text.contains(';') { ", separated by commas, not by `;`" } else { "" };
        return Err(format!("it needs login, name and group{by}"));
    };
    let person = NewPerson {
        id: login.parse()?,
        name: name.to_owned(),
        role: Role::Student,
        active: None,
        zone: field(3).map(str::parse).transpose()?,
        keys: field(4).map(ToOwned::to_owned).into_iter().collect(),
    };
    Ok(RosterLine { person: person.checked().map_err(|p| p.what)?, group: group.parse()? })
}

/// Fields of one line; `"` encloses one that holds commas, `""` inside of it is one `"`.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut found, mut rest) = (vec![], text);
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut after = quoted;
            loop {
                let (part, next) =
                    after.split_once('"').ok_or("a quote is not closed: no field goes over several lines")?;
                field.push_str(part);
                match next.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        after = more;
                    }
                    None => {
                        rest = next;
                        break;
                    }
                }
            }
            found.push(field);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err("text follows a closed quote".into());
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_line_is_named() {
        let text = "login,name,group\nok-one,\"Wang, Li\",g1\nBad,Name,g1\n\nnoname,,g1\nok-one,Again,g2\nroot,Root,g1\nx,y,g1,Mars/Base\nx2,y,g1,UTC,ssh-rsa nonsense\n\"open,x,g1\n";
        let wrong = read_roster("roster.csv", text).err().unwrap();
        let lines: Vec<u64> = wrong.iter().map(|p| p.at.as_ref().unwrap().line).collect();
        assert_eq!(lines, [3, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_good_roster_is_read() {
        let lines =
            read_roster("r", "\u{feff}login,name,group,zone\nbob,Bob,g2\r\namy,\"A \"\"M\"\" Y\",g1,Asia/Shanghai\n")
                .unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].person.name, "A \"M\" Y", "by login");
        assert!(read_roster("r", "# nothing\n").is_err());
        let semicolons = read_roster("r", "amy;Amy;red\n").err().unwrap();
        assert!(semicolons.iter().next().unwrap().what.ends_with("separated by commas, not by `;`"));
    }

    #[test]
    fn the_names_of_the_fields_are_nobody_however_they_are_written() {
        for head in [
            "login,name,group",
            "\"login\",\"name\",\"group\"",
            "\u{feff}\"Login\",\"Name\",\"Group\"",
            "# this spring\n\nlogin , name , group",
        ] {
            let lines = read_roster("r", &format!("{head}\namy,Amy,red\n")).unwrap();
            assert_eq!(lines.iter().map(|line| line.person.id.as_str()).collect::<Vec<_>>(), ["amy"], "{head:?}");
        }
        assert_eq!(read_roster("r", "amy,Amy,red\nlogin,Lo Gin,red\n").unwrap().len(), 2, "that one is somebody");
    }

    #[test]
    fn the_first_line_says_which_field_is_which() {
        for text in [
            "name,login,group\r\nJim,jim,green\r\n",
            "LOGIN,NAME,GROUP\njim,Jim,green\n",
            "Key,Group,,Name,Login\n,green,note,Jim,jim\n",
            "name,login,group,,\nJim,jim,green,,\n",
            "login,name,group,,,,\njim,Jim,green,,,,\n",
            "login,name,group,zone,SSH key\njim,Jim,green\n",
        ] {
            let lines = read_roster("r", text).unwrap();
            let of = |line: &RosterLine| {
                [line.person.id.to_string(), line.person.name.clone(), line.group.to_string()].join(" ")
            };
            assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), ["jim Jim green"], "{text:?}");
        }
        for (text, told) in [
            ("name,login,team\nJim,jim,green\n", "it names a field `team`"),
            ("name,login\nJim,jim\n", "it names no field `group`"),
            ("name,login,login,group\nJim,jim,jim,green\n", "`login` twice"),
            ("name,login,group\nJim,jim,green,UTC\n", "it has 4 fields: use name,login,group"),
            ("amy,\"Amy\nPond\",red\n", "no field goes over several lines"),
        ] {
            let wrong = read_roster("r", text).err().unwrap();
            assert!(wrong.iter().next().unwrap().what.contains(told), "{text:?}: {wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = read_roster("r", &text);
        }
    }
}
