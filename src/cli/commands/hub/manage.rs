use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{super::Context, lost, rules};
use crate::{
    cli::{
        args::{AuditArgs, CourseCommand, GroupCommand, HubArgs, PersonChange, UserCommand},
        clock::{local, zoned},
        hub_client::HubClient,
        output,
    },
    core::{Code, Problem, shell::printable},
    hub::{
        desk::{Checkup, Imported},
        domain::{Course, Group, Person, PersonId, Policy},
        gate,
        store::AuditRow,
    },
    render::{count, table},
};

pub(super) fn rows<T>(heading: &[&str], all: &[T], row: impl Fn(&T) -> Vec<String>) -> String {
    let mut rows = vec![heading.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    rows.extend(all.iter().map(row));
    table(&rows)
}

async fn listed<T: Serialize + DeserializeOwned>(
    cx: &Context,
    hub: &HubArgs,
    path: &str,
    heading: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), Problem> {
    let all: Vec<T> = HubClient::new(&cx.places, &hub.at)?.get(path).await?;
    output::value(hub.output, &all, |_| rows(heading, &all, row))
}

fn read(file: &Path) -> Result<String, Problem> {
    fs::read_to_string(file).map_err(|e| {
        let problem = Problem::new(Code::LocalFile, format!("cannot read {}", file.display()));
        // What spreadsheets write by default is in another encoding in much of the world.
        match e.kind() {
            io::ErrorKind::InvalidData => problem.hint("Save it in UTF-8; from a spreadsheet as CSV UTF-8."),
            _ => problem,
        }
        .because(e)
    })
}

const PEOPLE: [&str; 6] = ["LOGIN", "NAME", "ROLE", "ACTIVE", "GROUPS", "KEYS"];

fn person_row(p: &Person) -> Vec<String> {
    let groups: Vec<_> = p.groups.iter().map(ToString::to_string).collect();
    let active = if p.active { "yes" } else { "no" };
    let name = printable(&p.name).to_string();
    vec![p.id.to_string(), name, p.role.as_str().into(), active.into(), groups.join(","), p.keys.len().to_string()]
}

/// `kubecamp hub user`.
pub(super) async fn user(cx: &Context, command: UserCommand) -> Result<(), Problem> {
    match command {
        UserCommand::List { hub } => listed(cx, &hub, "/api/v1/people", &PEOPLE, person_row).await,
        UserCommand::Add { login, full_name, role, key, zone, hub } => {
            let keys = keys(&key)?;
            let body = json!({ "id": login, "name": full_name, "role": role, "zone": zone, "keys": keys });
            let client = HubClient::new(&cx.places, &hub.at)?;
            let made: Person = client.send(Method::POST, "/api/v1/people", &body, None).await?;
            output::value(hub.output, &made, |_| rows(&PEOPLE, std::slice::from_ref(&made), person_row))?;
            say_shared_keys(&client, &made).await;
            Ok(())
        }
        UserCommand::Link { login, hub } => {
            let client = HubClient::new(&cx.places, &hub.at)?;
            let path = format!("/api/v1/people/{login}/link");
            let made: Value = client.secret(&path, &json!({})).await?;
            let link = link(&made);
            output::value(hub.output, &made, |_| format!("{link}\n"))?;
            let login = |hub: &str| format!("kubecamp login --hub {hub} --link");
            output::say(&match link.split_once("/sign-in#") {
                Some((site, _)) => format!("Good once, for 15 minutes: in a browser, or pasted into {}.", login(site)),
                None => format!("Good once, for 15 minutes: {}, or the hub's sign-in page.", login(client.hub())),
            });
            Ok(())
        }
        UserCommand::Set { login, change, hub } => {
            let PersonChange { full_name, role, key, zone, enable } = change;
            let new = keys(&key)?;
            let to = |p: Person| Person {
                name: full_name.unwrap_or(p.name),
                role: role.unwrap_or(p.role),
                active: enable || p.active,
                zone: zone.unwrap_or(p.zone),
                keys: if new.is_empty() { p.keys } else { new },
                ..p
            };
            change_person(cx, &hub, &login, to).await
        }
        UserCommand::Disable { login, hub } => {
            let lost = lost::confirm_account(cx, &HubClient::new(&cx.places, &hub.at)?, &login).await?;
            change_person(cx, &hub, &login, |p| Person { active: false, ..p }).await?;
            lost.iter().for_each(|line| output::say(&format!("given up: {line}")));
            Ok(())
        }
    }
}

/// A one-time link: its whole address where the hub knows its own, else the text that is typed in by hand.
fn link(made: &Value) -> &str {
    let whole = made["url"].as_str().filter(|url| url.starts_with("http"));
    whole.or(made["token"].as_str()).unwrap_or_default()
}

fn keys(files: &[PathBuf]) -> Result<Vec<String>, Problem> {
    files.iter().map(|file| public(file)).collect()
}

/// The public key in a file. A private one is not sent anywhere, also where nobody would take it.
fn public(file: &Path) -> Result<String, Problem> {
    let line = read(file)?.trim().to_owned();
    if line.starts_with("-----BEGIN") {
        let (file, what) = (file.display(), "a private key, and a public one is asked for");
        return Err(Problem::new(Code::GateKey, format!("{file} is {what}")).hint(format!("Name {file}.pub.")));
    }
    gate::public_key(&line).map_err(|p| p.detail([format!("in {}", file.display())]))?;
    Ok(line)
}

/// Changes somebody as they are now; who changed them in between is not overwritten.
async fn change_person(
    cx: &Context,
    hub: &HubArgs,
    login: &PersonId,
    to: impl FnOnce(Person) -> Person,
) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &hub.at)?;
    let path = format!("/api/v1/people/{login}");
    let there: Person = client.get(&path).await?;
    let seen = there.version;
    let p = to(there);
    let body =
        json!({ "id": p.id, "name": p.name, "role": p.role, "active": p.active, "zone": p.zone, "keys": p.keys });
    let after: Person = client.send(Method::PUT, &path, &body, Some(seen)).await?;
    output::value(hub.output, &after, |_| rows(&PEOPLE, std::slice::from_ref(&after), person_row))?;
    say_shared_keys(&client, &after).await;
    Ok(())
}

/// Says who else has one of somebody's keys. It is only told: what fails here is no failure.
async fn say_shared_keys(client: &HubClient, person: &Person) {
    let all: Vec<Person> = client.get("/api/v1/people").await.unwrap_or_default();
    for other in all.iter().filter(|other| person.shares_a_key_with(other)) {
        let (one, two) = (&person.id, &other.id);
        output::say(&format!("note: {one} has an SSH key that {two} has too: whoever holds it signs in as both."));
    }
}

fn group_row(g: &Group) -> Vec<String> {
    let members: Vec<_> = g.members.iter().map(ToString::to_string).collect();
    vec![g.id.to_string(), g.course.to_string(), members.join(",")]
}

/// `kubecamp hub group`.
pub(super) async fn group(cx: &Context, command: GroupCommand) -> Result<(), Problem> {
    const HEADING: [&str; 3] = ["GROUP", "COURSE", "MEMBERS"];
    let (hub, method, path, body) = match command {
        GroupCommand::List { hub } => return listed(cx, &hub, "/api/v1/groups", &HEADING, group_row).await,
        GroupCommand::Add { group, course, hub } => {
            (hub, Method::PUT, format!("/api/v1/groups/{group}"), json!({ "course": course }))
        }
        GroupCommand::Join { group, login, hub } => {
            (hub, Method::PUT, format!("/api/v1/groups/{group}/members/{login}"), json!({}))
        }
        GroupCommand::Remove { group, hub } => {
            let client = HubClient::new(&cx.places, &hub.at)?;
            lost::confirm_group(cx, &client, &group).await?;
            client.send::<()>(Method::DELETE, &format!("/api/v1/groups/{group}"), &json!({}), None).await?;
            output::say(&format!("Group {group} is removed."));
            return Ok(());
        }
        GroupCommand::Leave { group, login, hub } => {
            (hub, Method::DELETE, format!("/api/v1/groups/{group}/members/{login}"), json!({}))
        }
    };
    let made: Group = HubClient::new(&cx.places, &hub.at)?.send(method, &path, &body, None).await?;
    output::value(hub.output, &made, |_| rows(&HEADING, std::slice::from_ref(&made), group_row))
}

/// `kubecamp hub course`.
pub(super) async fn course(cx: &Context, command: CourseCommand) -> Result<(), Problem> {
    const HEADING: [&str; 6] = ["COURSE", "TITLE", "GRID", "LONGEST", "HOURS/WEEK", "AHEAD"];
    let row = |c: &Course| {
        let p = &c.policy;
        let grid = u16::from(p.grid);
        let hours = format!("{}/{}", p.person_hours, p.group_hours);
        let title = printable(&c.title).to_string();
        vec![c.id.to_string(), title, format!("{grid}m"), format!("{}m", p.longest), hours, p.open_ahead.to_string()]
    };
    match command {
        CourseCommand::List { hub } => listed(cx, &hub, "/api/v1/courses", &HEADING, row).await,
        CourseCommand::Set { course, title: None, policy: None, .. } => {
            Err(Problem::new(Code::Usage, format!("nothing is said of course {course}"))
                .hint("Give a new course its --title; change one that there is by --title TEXT or --policy FILE."))
        }
        CourseCommand::Set { course, title, policy, hub } => {
            let named = policy.map(|file| rules::read(&file, &read(&file)?)).transpose()?;
            let path = format!("/api/v1/courses/{course}");
            let client = HubClient::new(&cx.places, &hub.at)?;
            let there = match client.get::<Course>(&path).await {
                Ok(there) => Some(there),
                Err(problem) if problem.code == Code::HubUnknown => None,
                Err(problem) => return Err(problem),
            };
            let seen = there.as_ref().map(|c| c.version);
            let (called, had) = there.map_or((None, Policy::default()), |c| (Some(c.title), c.policy));
            let title = title.or(called).ok_or_else(|| {
                Problem::new(Code::Usage, format!("there is no course {course}, and a new one needs a title"))
                    .hint("Check its name, kubecamp hub course list; or give the new one its --title.")
            })?;
            let body = json!({ "title": title, "policy": named.unwrap_or(had) });
            let made: Course = client.send(Method::PUT, &path, &body, seen).await?;
            let (grid, longest) = (u32::from(u16::from(made.policy.grid)), made.policy.longest);
            if longest % grid != 0 {
                let most = longest - longest % grid;
                output::say(&format!("note: on a grid of {grid} minutes the longest slot is {most}, not {longest}."));
            }
            output::value(hub.output, &made, |_| rows(&HEADING, std::slice::from_ref(&made), row))
        }
        CourseCommand::Import { course, file, hub } => {
            let client = HubClient::new(&cx.places, &hub.at)?;
            let done: Imported = client.text(&format!("/api/v1/courses/{course}/roster"), read(&file)?).await?;
            output::value(hub.output, &done, |_| {
                format!("{} added, {} changed, {} as they were\n", done.added, done.changed, done.same)
            })
        }
    }
}

/// Who is meant by `--actor`: a login alone is a person.
fn actor(text: String) -> String {
    let other = text.contains(':') || ["clerk", "console"].contains(&text.as_str());
    if other { text } else { format!("person:{text}") }
}

/// So many characters of what a row is about are in a table that is not wide.
const SHORT: usize = 50;

fn audit_row(a: &AuditRow, wide: bool) -> Vec<String> {
    let step = a
        .to_state
        .as_ref()
        .map_or_else(String::new, |to| format!("{} -> {to}", a.from_state.as_deref().unwrap_or("new")));
    let reason = printable(a.reason.as_deref().unwrap_or_default()).to_string();
    let mut about = a.told(|window| format!("{} to {}", local(window.starts), local(window.ends)));
    if let Some((end, _)) = about.char_indices().nth(SHORT).filter(|_| !wide) {
        about.truncate(end);
        about.push_str("...");
    }
    vec![a.id.to_string(), local(a.moment), a.actor.clone(), a.action.clone(), a.subject.clone(), about, step, reason]
}

/// `kubecamp hub audit`.
pub(super) async fn audit(cx: &Context, args: AuditArgs) -> Result<(), Problem> {
    let narrowed = args.subject.is_some() || args.actor.is_some();
    let params = [("subject", args.subject), ("actor", args.actor.map(actor)), ("most", Some(args.most.to_string()))];
    let all: Vec<AuditRow> = HubClient::new(&cx.places, &args.hub.at)?.find("/api/v1/audit", &params).await?;
    let when = zoned("WHEN");
    let heading = ["NUMBER", when.as_str(), "WHO", "WHAT", "ON", "ABOUT", "STATE", "WHY"];
    output::value(args.hub.output, &all, |wide| rows(&heading, &all, |row| audit_row(row, wide)))?;
    if narrowed && all.is_empty() {
        output::say(
            "Nothing is known of that. --subject is booking:ID, server:NAME, person:LOGIN, group:NAME or course:NAME; --actor \
             is a login, agent:SERVER, clerk or console.",
        );
    }
    Ok(())
}

/// `kubecamp hub doctor`.
pub(super) async fn doctor(cx: &Context, hub: HubArgs) -> Result<(), Problem> {
    let found: Checkup = HubClient::new(&cx.places, &hub.at)?.get("/api/v1/doctor").await?;
    output::value(hub.output, &found, |_| {
        let notes: String = found.notes.iter().map(|n| format!("note: {}\n", printable(n))).collect();
        let (bookings, rows) = (count(found.bookings as u64, "booking"), count(found.audit as u64, "audit row"));
        format!("{bookings} and {rows} checked\n{notes}")
    })?;
    if found.wrong.is_empty() {
        return Ok(());
    }
    let what = format!("{} records contradict each other", found.wrong.len());
    Err(Problem::new(Code::HubDoctor, what).detail(found.wrong))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{SHORT, actor, audit_row, link, public, read};
    use crate::hub::store::AuditRow;

    #[test]
    fn a_link_is_its_address_where_that_is_whole() {
        let whole = "https://hub.example.org/sign-in#kct_x";
        for (url, told) in [(json!(whole), whole), (json!("/sign-in#kct_x"), "kct_x"), (json!(null), "kct_x")] {
            assert_eq!(link(&json!({ "token": "kct_x", "url": url })), told);
        }
    }

    #[test]
    fn a_file_in_another_encoding_is_told_how_to_save_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // In GBK, and in UTF-16.
        for bytes in [&b"amy,\xc0\xee,red\n"[..], b"\xff\xfea\0m\0y\0"] {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(
                read(file.path()).unwrap_err().all_hints(),
                ["Save it in UTF-8; from a spreadsheet as CSV UTF-8."]
            );
        }
        assert!(read(std::path::Path::new("/nowhere")).unwrap_err().hints.is_empty());
    }

    #[test]
    fn a_row_of_the_audit_says_whom_it_concerns() {
        let row = json!({
            "id": 7, "moment": 0, "actor": "person:tom", "action": "token.add", "subject": "token:t1b1",
            "from_state": null, "to_state": null, "version": null, "reason": null,
            "detail": { "kind": "link", "person": "amy", "server": null },
        });
        let mut row: AuditRow = serde_json::from_value(row).unwrap();
        assert_eq!(audit_row(&row, false)[5], "sign-in link, for amy");
        row.action = "group.remove".into();
        row.detail = json!({ "course": "k8s", "members": vec!["amy"; 30] });
        let (short, long) = (audit_row(&row, false)[5].clone(), audit_row(&row, true)[5].clone());
        assert!(
            short.len() == SHORT + 3 && short.starts_with("of course k8s, members: amy, ") && short.ends_with("...")
        );
        assert_eq!(long.matches("amy").count(), 30);
    }

    #[test]
    fn a_private_key_is_told_with_the_file_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tom");
        std::fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let told = public(&file).unwrap_err();
        assert!(told.what.contains("tom is a private key"), "{told}");
        assert_eq!(told.all_hints(), [format!("Name {}.pub.", file.display())]);
        std::fs::write(&file, "nonsense\n").unwrap();
        assert_eq!(public(&file).unwrap_err().detail, [format!("in {}", file.display())]);
    }

    #[test]
    fn a_login_is_a_person_of_the_audit() {
        let meant = ["amy", "person:amy", "agent:one", "clerk", "console"].map(|text| actor(text.to_owned()));
        assert_eq!(meant, ["person:amy", "person:amy", "agent:one", "clerk", "console"]);
    }
}
