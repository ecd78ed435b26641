use std::collections::BTreeMap;

use serde_json::json;

use super::{
    about::changed,
    states::states,
    tx::{Row, Tx},
    value::{Arg, args},
};
use crate::{
    core::{Code, Problem},
    hub::domain::{Course, CourseId, Group, GroupId, Person, PersonId},
};

/// How a statement calls the columns of a course.
struct CourseColumns {
    id: &'static str,
    title: &'static str,
    policy: &'static str,
    version: &'static str,
}

const COURSE: CourseColumns = CourseColumns { id: "id", title: "title", policy: "policy", version: "version" };
const COURSE_OF_GROUP: CourseColumns =
    CourseColumns { id: "course_id", title: "course_title", policy: "course_policy", version: "course_version" };

fn course(row: &Row, called: &CourseColumns) -> Result<Course, Problem> {
    Ok(Course {
        id: row.parse(called.id)?,
        title: row.text(called.title)?,
        policy: row.json(called.policy)?,
        version: row.int(called.version)?,
    })
}

fn nobody(id: &PersonId) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is nobody called {id}"))
        .hint("kubecamp hub user list names everybody.")
}

fn no_course(id: &CourseId) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is no course {id}"))
        .hint("kubecamp hub course list names all courses.")
}

fn no_group(id: &GroupId) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is no group {id}")).hint("kubecamp hub group list names all groups.")
}

fn person(row: &Row, groups: Vec<GroupId>) -> Result<Person, Problem> {
    Ok(Person {
        id: row.parse("id")?,
        name: row.text("name")?,
        role: row.word("role")?,
        active: row.int("active")? == 1,
        zone: row.parse("zone")?,
        keys: row.json("keys")?,
        groups,
        version: row.int("version")?,
    })
}

impl Tx {
    /// Adds a course.
    pub async fn add_course(&mut self, new: &Course) -> Result<(), Problem> {
        let sql = "INSERT INTO courses (id, title, policy) VALUES ($1, $2, $3)";
        self.run(sql, Self::course_values(new)).await?;
        self.note("course.add", format!("course:{}", new.id), None, json!(new));
        Ok(())
    }

    /// Changes a course; `next.version` is the version that was read.
    pub async fn change_course(&mut self, next: &Course) -> Result<(), Problem> {
        let before = self.course(&next.id).await?;
        let sql = "UPDATE courses SET title = $2, policy = $3, version = version + 1 WHERE id = $1 AND version = $4";
        let mut values = Self::course_values(next);
        values.extend(args![next.version]);
        if self.run(sql, values).await? != 1 {
            return Err(Problem::new(Code::BookStale, format!("course {} was changed in between", next.id)));
        }
        self.note("course.change", format!("course:{}", next.id), None, changed(&before, next));
        Ok(())
    }

    fn course_values(new: &Course) -> Vec<Arg> {
        args![new.id.to_string(), new.title.clone(), json!(new.policy).to_string()]
    }

    /// A course by its name.
    pub async fn course(&mut self, id: &CourseId) -> Result<Course, Problem> {
        self.find_course(id).await?.ok_or_else(|| no_course(id))
    }

    /// A course by its name, when there is such a course.
    pub async fn find_course(&mut self, id: &CourseId) -> Result<Option<Course>, Problem> {
        let row = self.one("SELECT * FROM courses WHERE id = $1", args![id.to_string()]).await?;
        row.map(|r| course(&r, &COURSE)).transpose()
    }

    /// All courses by name.
    pub async fn courses(&mut self) -> Result<Vec<Course>, Problem> {
        self.all("SELECT * FROM courses ORDER BY id", vec![]).await?.iter().map(|r| course(r, &COURSE)).collect()
    }

    /// Adds a group; one of this name in the same course is left as it is.
    pub async fn put_group(&mut self, id: &GroupId, course: &CourseId) -> Result<(), Problem> {
        let sql = "INSERT INTO groups (id, course) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        if self.run(sql, args![id.to_string(), course.to_string()]).await? == 0 {
            let there = self.group(id).await?;
            if there.course != *course {
                let what = format!("group {id} belongs to course {}", there.course);
                return Err(Problem::new(Code::HubExists, what));
            }
            return Ok(());
        }
        self.note("group.add", format!("group:{id}"), None, json!({ "course": course }));
        Ok(())
    }

    /// A group with its members.
    pub async fn group(&mut self, id: &GroupId) -> Result<Group, Problem> {
        let row = self.one("SELECT * FROM groups WHERE id = $1", args![id.to_string()]).await?;
        let row = row.ok_or_else(|| no_group(id))?;
        let members = "SELECT person FROM members WHERE grp = $1 ORDER BY person";
        let members = self.all(members, args![id.to_string()]).await?;
        let members = members.iter().map(|r| r.parse("person")).collect::<Result<_, _>>()?;
        Ok(Group { id: id.clone(), course: row.parse("course")?, members })
    }

    /// All groups by name.
    pub async fn groups(&mut self) -> Result<Vec<Group>, Problem> {
        let mut members = BTreeMap::<GroupId, Vec<PersonId>>::new();
        for row in self.all("SELECT grp, person FROM members ORDER BY grp, person", vec![]).await? {
            members.entry(row.parse("grp")?).or_default().push(row.parse("person")?);
        }
        let rows = self.all("SELECT id, course FROM groups ORDER BY id", vec![]).await?;
        rows.iter()
            .map(|row| {
                let id = row.parse("id")?;
                Ok(Group { course: row.parse("course")?, members: members.remove(&id).unwrap_or_default(), id })
            })
            .collect()
    }

    /// Somebody by their login, with their groups by name and the course of each: one statement for what every booking
    /// asks first.
    pub async fn person_in_courses(&mut self, id: &PersonId) -> Result<(Person, Vec<(GroupId, Course)>), Problem> {
        let sql = "SELECT p.id, p.name, p.role, p.active, p.zone, p.keys, p.version, g.id AS grp, c.id AS course_id, \
                   c.title AS course_title, c.policy AS course_policy, c.version AS course_version \
                   FROM people AS p LEFT JOIN members AS m ON m.person = p.id LEFT JOIN groups AS g ON g.id = m.grp \
                   LEFT JOIN courses AS c ON c.id = g.course WHERE p.id = $1 ORDER BY g.id";
        let rows = self.all(sql, args![id.to_string()]).await?;
        let mut groups = vec![];
        for row in &rows {
            if let Some(group) = row.opt_parse::<GroupId>("grp")? {
                groups.push((group, course(row, &COURSE_OF_GROUP)?));
            }
        }
        let names = groups.iter().map(|(group, _)| group.clone()).collect();
        let first = rows.first().ok_or_else(|| nobody(id))?;
        Ok((person(first, names)?, groups))
    }

    /// Removes a group.
    ///
    /// What its members booked stays, without it.
    pub async fn remove_group(&mut self, old: &Group) -> Result<(), Problem> {
        let id = || args![old.id.to_string()];
        // Who remembers bookings by their server's revision must notice.
        let shown = "UPDATE servers SET revision = revision + 1 WHERE id IN \
                     (SELECT server FROM bookings WHERE grp = $1 AND server IS NOT NULL)";
        self.run(shown, id()).await?;
        self.run("UPDATE bookings SET grp = NULL WHERE grp = $1", id()).await?;
        self.run("DELETE FROM members WHERE grp = $1", id()).await?;
        self.run("DELETE FROM groups WHERE id = $1", id()).await?;
        self.note("group.remove", format!("group:{}", old.id), None, json!(old));
        Ok(())
    }

    /// Locks the servers that bookings of a group are on, by name; before [`Self::lock_group`].
    pub async fn lock_servers_of_group(&mut self, id: &GroupId) -> Result<(), Problem> {
        let sql =
            "SELECT 1 FROM servers WHERE id IN (SELECT server FROM bookings WHERE grp = $1) ORDER BY id FOR UPDATE";
        self.lock(sql, id.as_str()).await
    }

    /// Locks a group until the transaction ends; after servers and people.
    pub async fn lock_group(&mut self, id: &GroupId) -> Result<(), Problem> {
        self.lock("SELECT 1 FROM groups WHERE id = $1 FOR UPDATE", id.as_str()).await
    }

    /// Puts somebody into a group, or takes them out.
    pub async fn set_member(&mut self, person: &PersonId, group: &GroupId, member: bool) -> Result<(), Problem> {
        let values = args![person.to_string(), group.to_string()];
        let (sql, action) = if member {
            ("INSERT INTO members (person, grp) VALUES ($1, $2) ON CONFLICT (person, grp) DO NOTHING", "group.join")
        } else {
            ("DELETE FROM members WHERE person = $1 AND grp = $2", "group.leave")
        };
        if self.run(sql, values).await? == 1 {
            self.note(action, format!("group:{group}"), None, json!({ "person": person }));
        }
        Ok(())
    }

    /// Adds somebody.
    pub async fn add_person(&mut self, new: &Person) -> Result<(), Problem> {
        let sql = "INSERT INTO people (id, name, role, active, zone, keys) VALUES ($1, $2, $3, $4, $5, $6)";
        self.run(sql, Self::person_values(new)).await?;
        self.note("person.add", format!("person:{}", new.id), None, json!(new));
        Ok(())
    }

    /// Locks the servers whose plans name any of these people, by name; before several of them are changed.
    pub async fn lock_servers_of_people(&mut self, ids: &[&PersonId]) -> Result<(), Problem> {
        let sql = concat!(
            "SELECT 1 FROM servers WHERE id IN (SELECT server FROM bookings WHERE person IN \
             (SELECT jsonb_array_elements_text(CAST(CAST($1 AS TEXT) AS JSONB))) AND state IN ",
            states!(is_usable),
            ") ORDER BY id FOR UPDATE"
        );
        self.lock(sql, &json!(ids).to_string()).await
    }

    /// Changes somebody; `next.version` is the version that was read.
    ///
    /// The plans that name them are made anew.
    pub async fn change_person(&mut self, next: &Person) -> Result<(), Problem> {
        // Servers before people and by name, as everywhere; an update alone takes them in any order.
        let locked = concat!(
            "SELECT 1 FROM servers WHERE id IN (SELECT server FROM bookings WHERE person = $1 AND state IN ",
            states!(is_usable),
            ") ORDER BY id FOR UPDATE"
        );
        self.lock(locked, next.id.as_str()).await?;
        let plans = concat!(
            "UPDATE servers SET revision = revision + 1 WHERE id IN (SELECT server FROM bookings \
             WHERE person = $1 AND state IN ",
            states!(is_usable),
            ")"
        );
        self.run(plans, args![next.id.to_string()]).await?;
        let before = self.one("SELECT * FROM people WHERE id = $1", args![next.id.to_string()]).await?;
        let before = before.map(|row| person(&row, vec![])).transpose()?.ok_or_else(|| nobody(&next.id))?;
        let sql = "UPDATE people SET name = $2, role = $3, active = $4, zone = $5, keys = $6, version = version + 1 \
                   WHERE id = $1 AND version = $7";
        let mut values = Self::person_values(next);
        values.extend(args![next.version]);
        if self.run(sql, values).await? != 1 {
            return Err(Problem::new(Code::BookStale, format!("person {} was changed in between", next.id)));
        }
        self.note("person.change", format!("person:{}", next.id), None, changed(&before, next));
        Ok(())
    }

    fn person_values(new: &Person) -> Vec<Arg> {
        args![
            new.id.to_string(),
            new.name.clone(),
            new.role.as_str(),
            i64::from(new.active),
            new.zone.to_string(),
            json!(new.keys).to_string(),
        ]
    }

    /// Somebody by their login, with their groups.
    pub async fn person(&mut self, id: &PersonId) -> Result<Person, Problem> {
        self.find_person(id).await?.ok_or_else(|| nobody(id))
    }

    /// Somebody by their login, when there is such a person.
    pub async fn find_person(&mut self, id: &PersonId) -> Result<Option<Person>, Problem> {
        let Some(row) = self.one("SELECT * FROM people WHERE id = $1", args![id.to_string()]).await? else {
            return Ok(None);
        };
        let groups = self.all("SELECT grp FROM members WHERE person = $1 ORDER BY grp", args![id.to_string()]).await?;
        let groups = groups.iter().map(|r| r.parse("grp")).collect::<Result<_, _>>()?;
        person(&row, groups).map(Some)
    }

    /// Locks somebody until the transaction ends; after servers, before groups.
    pub async fn lock_person(&mut self, id: &PersonId) -> Result<(), Problem> {
        self.lock("SELECT 1 FROM people WHERE id = $1 FOR UPDATE", id.as_str()).await
    }

    /// Locks these people, by login, until the transaction ends; after servers, before groups.
    ///
    /// Who is not there is left out.
    pub async fn lock_people(&mut self, ids: &[&PersonId]) -> Result<(), Problem> {
        let sql = "SELECT 1 FROM people WHERE id IN \
                   (SELECT jsonb_array_elements_text(CAST(CAST($1 AS TEXT) AS JSONB))) ORDER BY id FOR UPDATE";
        self.lock(sql, &json!(ids).to_string()).await
    }

    /// Whether somebody else is an active admin.
    ///
    /// Until the transaction ends nobody else takes an admin away.
    pub async fn has_other_admin(&mut self, id: &PersonId) -> Result<bool, Problem> {
        // Not the rows: those of people are locked after the servers', and there is no order between two admins.
        self.lock("SELECT pg_advisory_xact_lock(hashtext($1))", "kubecamp-admins").await?;
        let sql = "SELECT id FROM people WHERE id <> $1 AND role = 'admin' AND active = 1 LIMIT 1";
        Ok(self.one(sql, args![id.to_string()]).await?.is_some())
    }

    /// Everybody by login.
    pub async fn people(&mut self) -> Result<Vec<Person>, Problem> {
        let rows = self.all("SELECT * FROM people ORDER BY id", vec![]).await?;
        let members = self.all("SELECT person, grp FROM members ORDER BY grp", vec![]).await?;
        let mut groups = std::collections::BTreeMap::<String, Vec<GroupId>>::new();
        for row in &members {
            groups.entry(row.text("person")?).or_default().push(row.parse("grp")?);
        }
        rows.iter().map(|row| person(row, groups.remove(&row.text("id")?).unwrap_or_default())).collect()
    }
}
