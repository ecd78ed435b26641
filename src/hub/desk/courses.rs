use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Caller, Desk, Edit,
    keys::plain_keys,
    sign_in::{end_of_lost_keys, hash, is_signed_in_still, lock_signed_in},
    transaction::{transact, transact_once},
};
use crate::{
    core::{Code, Problem, Secret},
    hub::{
        domain::{Course, CourseId, Epoch, Group, GroupId, Person, PersonId, Policy, Role, State, Zone},
        store::{Hook, Listing, Tx},
    },
};

/// Somebody to be added or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    /// The login.
    pub id: PersonId,
    /// How people call them, up to 100 characters.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they can sign in and book; none is yes.
    #[serde(default)]
    pub active: Option<bool>,
    /// The zone that their pages show; none is UTC.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// Their public SSH keys, one line each.
    #[serde(default)]
    pub keys: Vec<String>,
}

impl NewPerson {
    /// Refuses names and keys that make no sense; keys are written anew with a comment of plain text.
    pub(super) fn checked(&self) -> Result<Self, Problem> {
        let bad = |what: String, hint: &str| Problem::new(Code::HubInvalid, what).hint(hint);
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            let what = format!("the name of {} is not 1 to 100 characters of plain text", self.id);
            return Err(bad(what, "Give the full name on one line, as Amy Li."));
        }
        if RESERVED.contains(&self.id.as_str()) {
            let what = format!("{} is an account of the system on the servers", self.id);
            return Err(bad(what, "Choose another login: it is the name of their account there."));
        }
        Ok(Self { name: name.to_owned(), keys: plain_keys(&self.id, &self.keys)?, ..self.clone() })
    }

    /// Somebody as they are said to be, without groups, in a version.
    fn in_version(&self, version: i64) -> Person {
        Person {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            active: self.active.unwrap_or(true),
            zone: self.zone.clone().unwrap_or_else(Zone::utc),
            keys: self.keys.clone(),
            groups: vec![],
            version,
        }
    }
}

/// Names that a Linux has already; a person of this name would get into what is there.
const RESERVED: [&str; 25] = [
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "www-data",
    "backup",
    "list",
    "irc",
    "nobody",
    "sshd",
    "systemd-network",
    "messagebus",
    "admin",
    "kubecamp",
    // Folders of cron and at, where those of people are by their names.
    "crontabs",
    "atjobs",
    "tabs",
];

/// Refuses a change after which nobody could manage the hub.
async fn keep_an_admin(tx: &mut Tx, there: &Person, next: &Person) -> Result<(), Problem> {
    let manages = |p: &Person| p.active && p.role == Role::Admin;
    if !manages(there) || manages(next) || tx.has_other_admin(&there.id).await? {
        return Ok(());
    }
    let what = format!("{} is the last active admin, and nobody could manage the hub then", there.id);
    Err(Problem::new(Code::HubDenied, what)
        .hint("Make somebody else an admin first: kubecamp hub user set LOGIN --role admin."))
}

/// Changes somebody, and ends what signed them in where they are out, are somebody else by role, or lose a key; but not the
/// token of hash `but`, which asks for it, where they only lose a key.
async fn change(tx: &mut Tx, caller: &Caller, there: &Person, next: &Person, but: Option<&str>) -> Result<(), Problem> {
    if there.role != Role::Student {
        caller.needs_admin()?;
    }
    keep_an_admin(tx, there, next).await?;
    tx.change_person(next).await?;
    if next.active && there.role == next.role {
        return end_of_lost_keys(tx, there, next, but).await;
    }
    tx.revoke_all(&next.id, None).await.map(drop)
}

/// There is no webhook of this number.
fn no_hook(id: i64) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is no webhook {id}")).hint("GET /api/v1/hooks lists them.")
}

impl Desk {
    /// Adds a course, or changes its title and rules when `version` is the one that the caller has seen.
    pub async fn put_course(
        &self,
        caller: &Caller,
        now: Epoch,
        id: &CourseId,
        title: &str,
        policy: &Policy,
        version: Option<i64>,
    ) -> Result<Course, Problem> {
        caller.needs_admin()?;
        policy.check()?;
        if title.trim().is_empty() || title.chars().count() > 200 || title.chars().any(char::is_control) {
            return Err(Problem::new(Code::HubInvalid, "a title has 1 to 200 characters of plain text")
                .hint("Give it on one line, as --title Kubernetes."));
        }
        transact!(self, caller, now, |tx| {
            let (title, policy) = (title.trim().to_owned(), policy.clone());
            let mut row = Course { id: id.clone(), title, policy, version: 1 };
            match (tx.find_course(id).await?, version) {
                (None, Some(_)) => {
                    return Err(Problem::new(Code::BookStale, format!("there is no course {id} to be changed")));
                }
                (None, None) => tx.add_course(&row).await?,
                (Some(there), None) => {
                    let what = format!("course {id} exists already, as {}", there.title);
                    return Err(Problem::new(Code::HubExists, what));
                }
                (Some(_), Some(version)) => {
                    row.version = version;
                    tx.change_course(&row).await?;
                }
            }
            tx.course(id).await
        })
    }

    /// A course by its name.
    pub async fn course(&self, _caller: &Caller, now: Epoch, id: &CourseId) -> Result<Course, Problem> {
        self.store.read(now).await?.course(id).await
    }

    /// All courses.
    pub async fn courses(&self, _caller: &Caller, now: Epoch) -> Result<Vec<Course>, Problem> {
        self.store.read(now).await?.courses().await
    }

    /// Adds a group to a course.
    pub async fn put_group(
        &self,
        caller: &Caller,
        now: Epoch,
        id: &GroupId,
        course: &CourseId,
    ) -> Result<Group, Problem> {
        caller.needs_teacher()?;
        transact!(self, caller, now, |tx| {
            tx.course(course).await?;
            tx.put_group(id, course).await?;
            tx.group(id).await
        })
    }

    /// Removes a group whose members hold nothing by it; they leave it, and what they booked stays without it.
    pub async fn remove_group(&self, caller: &Caller, now: Epoch, id: &GroupId) -> Result<(), Problem> {
        caller.needs_teacher()?;
        transact!(self, caller, now, |tx| {
            tx.lock_servers_of_group(id).await?;
            tx.lock_group(id).await?;
            let group = tx.group(id).await?;
            let want = Listing { group: Some(id.clone()), open: true, ..Listing::default() };
            let open = tx.bookings(&want).await?.len();
            if open > 0 {
                let what = format!("group {id} has bookings or waits that are not over: {open}");
                return Err(Problem::new(Code::BookState, what).hint("Cancel them first, or wait until they are over."));
            }
            tx.remove_group(&group).await
        })
    }

    /// All groups with their members.
    pub async fn groups(&self, _caller: &Caller, now: Epoch) -> Result<Vec<Group>, Problem> {
        self.store.read(now).await?.groups().await
    }

    /// Who can be in a slot of a course, by login: members of its groups whose account is open.
    pub async fn students(&self, _caller: &Caller, now: Epoch, course: &CourseId) -> Result<Vec<PersonId>, Problem> {
        let mut tx = self.store.read(now).await?;
        let all = tx.groups().await?.into_iter().filter(|g| g.course == *course).flat_map(|g| g.members);
        let members: BTreeSet<PersonId> = all.collect();
        let people = tx.people().await?.into_iter().filter(|p| p.active && members.contains(&p.id));
        Ok(people.map(|p| p.id).collect())
    }

    /// Puts somebody into a group, for which they leave their other one of its course, or takes them out.
    pub async fn set_member(
        &self,
        caller: &Caller,
        now: Epoch,
        person: &PersonId,
        group: &GroupId,
        member: bool,
    ) -> Result<Group, Problem> {
        caller.needs_teacher()?;
        transact!(self, caller, now, |tx| {
            tx.person(person).await?;
            let course = tx.group(group).await?.course;
            // Who books at this moment does so as a member, or finds that they are none any more.
            tx.lock_person(person).await?;
            if member {
                // In two of them one has the quota of whichever is first by name: as by a roster, it is one.
                let there = tx.groups().await?;
                let others =
                    there.iter().filter(|g| g.course == course && g.id != *group && g.members.contains(person));
                for other in others {
                    tx.set_member(person, &other.id, false).await?;
                }
            }
            tx.set_member(person, group, member).await?;
            tx.group(group).await
        })
    }

    /// Adds somebody.
    ///
    /// A repeated `key` gets the first answer.
    pub async fn add_person(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        new: &NewPerson,
    ) -> Result<Person, Problem> {
        self.write_person(caller, now, key, new, None, None).await
    }

    /// As [`Self::add_person`], by somebody who is signed in with `token`; nobody is added by one that has ended.
    pub async fn add_person_with(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        new: &NewPerson,
        token: &Secret,
    ) -> Result<Person, Problem> {
        self.write_person(caller, now, key, new, None, Some(token)).await
    }

    /// Adds somebody, or changes them when `version` is the one that the caller has seen.
    ///
    /// Somebody who is made inactive loses all tokens, and who loses a key those for programs. Only an admin makes teachers
    /// and admins, and the last active admin stays one.
    pub async fn put_person(
        &self,
        caller: &Caller,
        now: Epoch,
        new: &NewPerson,
        version: Option<i64>,
    ) -> Result<Person, Problem> {
        self.write_person(caller, now, None, new, version, None).await
    }

    /// As [`Self::put_person`], by somebody who is signed in with `token`: that one stays when they lose a key, and where it
    /// has ended nothing is changed.
    pub async fn put_person_with(
        &self,
        caller: &Caller,
        now: Epoch,
        new: &NewPerson,
        version: Option<i64>,
        token: &Secret,
    ) -> Result<Person, Problem> {
        self.write_person(caller, now, None, new, version, Some(token)).await
    }

    async fn write_person(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        new: &NewPerson,
        version: Option<i64>,
        token: Option<&Secret>,
    ) -> Result<Person, Problem> {
        caller.needs_teacher()?;
        let new = new.checked()?;
        let by = token.map(|token| hash(token.expose()));
        if new.role != Role::Student {
            caller.needs_admin()?;
        }
        let person = transact_once!(self, caller, now, key, ("person", &new), |tx| {
            // Those that a change of them changes too, before people as everywhere.
            tx.lock_servers_of_people(&[&new.id]).await?;
            lock_signed_in(&mut tx, caller, by.as_deref(), &[&new.id]).await?;
            match (tx.find_person(&new.id).await?, version) {
                (None, Some(_)) => {
                    return Err(Problem::new(Code::BookStale, format!("there is no {} to be changed", new.id)));
                }
                (None, None) => tx.add_person(&new.in_version(1)).await?,
                (Some(there), None) => {
                    let what = format!("{} exists already, as {}", there.id, there.name);
                    return Err(Problem::new(Code::HubExists, what));
                }
                (Some(there), Some(version)) => {
                    change(&mut tx, caller, &there, &new.in_version(version), by.as_deref()).await?;
                }
            }
            tx.person(&new.id).await
        })?;
        // Who is added holds nothing; who was let in since then shall keep what they hold when it is asked once more.
        if new.active == Some(false) && version.is_some() {
            self.end_all_of(caller, now, &new.id).await?;
        }
        Ok(person)
    }

    /// Replaces one's own SSH keys, when `version` is the one that the caller has seen; none does so in any case.
    ///
    /// What is booked gets the new keys too: the plans of those servers are made anew. Where a key goes the tokens for
    /// programs end, but not `token`, by which the caller is signed in.
    pub async fn set_own_keys(
        &self,
        caller: &Caller,
        now: Epoch,
        keys: &[String],
        version: Option<i64>,
        token: Option<&Secret>,
    ) -> Result<Person, Problem> {
        let id = caller.person().ok_or_else(|| Problem::new(Code::HubDenied, "only people have SSH keys"))?;
        let keys = plain_keys(id, keys)?;
        let by = token.map(|token| hash(token.expose()));
        transact!(self, caller, now, |tx| {
            let there = tx.person(id).await?;
            is_signed_in_still(&mut tx, by.as_deref()).await?;
            let version = version.unwrap_or(there.version);
            let next = Person { keys: keys.clone(), version, ..there.clone() };
            tx.change_person(&next).await?;
            end_of_lost_keys(&mut tx, &there, &next, by.as_deref()).await?;
            tx.person(id).await
        })
    }

    /// Gives up everything that somebody holds or waits for: whoever is out must not get in by an old booking.
    async fn end_all_of(&self, caller: &Caller, now: Epoch, person: &PersonId) -> Result<(), Problem> {
        let want = Listing { person: Some(person.clone()), open: true, ..Listing::default() };
        let edit = Edit { version: None, reason: Some("the account was closed".into()) };
        for booking in self.bookings(caller, now, &want).await? {
            let ended = match booking.state {
                State::Waitlisted | State::Offered => self.cancel(caller, now, None, &booking.id, &edit).await,
                _ => self.release(caller, now, None, &booking.id, &edit).await,
            };
            match ended {
                // The clerk ends the same ones.
                Err(problem) if !matches!(problem.code, Code::BookState | Code::BookStale) => return Err(problem),
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody by their login: oneself, or anybody for a teacher.
    pub async fn person(&self, caller: &Caller, now: Epoch, id: &PersonId) -> Result<Person, Problem> {
        caller.needs_self(id)?;
        self.store.read(now).await?.person(id).await
    }

    /// Everybody, for teachers.
    pub async fn people(&self, caller: &Caller, now: Epoch) -> Result<Vec<Person>, Problem> {
        caller.needs_teacher()?;
        self.store.read(now).await?.people().await
    }

    /// Adds a webhook, and returns the secret that signs it.
    ///
    /// A repeated `key` gets the first answer.
    pub async fn add_hook(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        url: &str,
    ) -> Result<(i64, Secret), Problem> {
        caller.needs_admin()?;
        // What is parsed is not what is kept: line breaks are dropped in parsing.
        let plain = !url.chars().any(|c| c.is_control() || c.is_whitespace());
        let good = plain
            && reqwest::Url::parse(url).is_ok_and(|u| {
                matches!(u.scheme(), "http" | "https")
                    && u.host().is_some()
                    && u.username().is_empty()
                    && u.password().is_none()
            });
        if !good || url.len() > 1000 {
            let what = "a webhook's address is http:// or https://, without a user, spaces or line breaks";
            return Err(Problem::new(Code::HubInvalid, what).hint("Write it as https://ci.example.org/kubecamp."));
        }
        let secret = super::sign_in::random_text("kcw_");
        let id = transact_once!(self, caller, now, key, ("hook", url), |tx| tx.add_hook(url, &secret).await)?;
        // What is kept under a key is the number alone; a repeat is told the secret of the hook that was made first.
        Ok((id, self.store.read(now).await?.hook_secret(id).await?))
    }

    /// All webhooks.
    pub async fn hooks(&self, caller: &Caller, now: Epoch) -> Result<Vec<Hook>, Problem> {
        caller.needs_admin()?;
        self.store.read(now).await?.hooks().await
    }

    /// Removes a webhook.
    pub async fn drop_hook(&self, caller: &Caller, now: Epoch, id: i64) -> Result<(), Problem> {
        caller.needs_admin()?;
        let gone = transact!(self, caller, now, |tx| tx.drop_hook(id).await)?;
        if gone { Ok(()) } else { Err(no_hook(id)) }
    }
}
