use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    tx::{Row, Tx},
    value::args,
};
use crate::{
    core::{Code, Problem, Secret},
    hub::domain::{Epoch, PersonId, ServerId},
};

/// Deliveries `d` that are due at `$1`, with their hook `h`. None that comes after one which a hub has taken and not tried yet:
/// that would arrive first. What was tried and refused holds up nothing.
macro_rules! due {
    () => {
        " FROM deliveries AS d JOIN hooks AS h ON h.id = d.hook \
         LEFT JOIN (SELECT hook, min(event) AS event FROM deliveries \
                    WHERE done IS NULL AND tries = 0 AND next_try > $1 GROUP BY hook) AS taken ON taken.hook = d.hook \
         WHERE h.active = 1 AND d.done IS NULL AND d.next_try <= $1 AND (taken.event IS NULL OR d.event < taken.event) "
    };
}

/// The newest rows of the subject `$1`, and those of others that concern the person `$4`, none where that is none. Each half by
/// an index of its own.
const NEWEST_OF: &str = "SELECT * FROM (SELECT * FROM audit WHERE subject = $1 AND (CAST($2 AS TEXT) IS NULL OR actor = $2) \
     ORDER BY id DESC LIMIT $3) AS own \
     UNION SELECT * FROM (SELECT * FROM audit WHERE person = $4 AND (CAST($2 AS TEXT) IS NULL OR actor = $2) \
     ORDER BY id DESC LIMIT $3) AS others ORDER BY id DESC LIMIT $3";

/// What is about to be written down.
pub(super) struct NewAudit {
    pub action: String,
    pub subject: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub version: Option<i64>,
    pub reason: Option<String>,
    pub detail: Value,
}

/// What is about to be told.
pub(super) struct NewEvent {
    pub kind: String,
    pub subject: String,
    pub person: Option<String>,
    pub server: Option<String>,
    pub payload: Value,
}

/// Who did what, when and why; never changed once written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Its number; grows in the order in which changes became true.
    pub id: i64,
    /// When.
    pub moment: Epoch,
    /// Who: `person:LOGIN`, `agent:SERVER`, `clerk` or `console`.
    pub actor: String,
    /// What, as `booking.cancel`.
    pub action: String,
    /// On what, as `booking:ID`.
    pub subject: String,
    /// The state before.
    pub from_state: Option<String>,
    /// The state after.
    pub to_state: Option<String>,
    /// The version after.
    pub version: Option<i64>,
    /// Why.
    pub reason: Option<String>,
    /// What else there is to know.
    pub detail: Value,
}

/// Something that happened; the event stream and the webhooks tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Its number; grows in the order in which changes became true.
    pub id: i64,
    /// When.
    pub moment: Epoch,
    /// What, as `booking.active` or `server.changed`.
    pub kind: String,
    /// On what, as `booking:ID`.
    pub subject: String,
    /// Whom it concerns.
    pub person: Option<PersonId>,
    /// Which server it concerns.
    pub server: Option<ServerId>,
    /// The whole of it after the change.
    pub payload: Value,
}

/// Where events are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Its number.
    pub id: i64,
    /// Where.
    pub url: String,
    /// Whether it is used.
    pub active: bool,
}

/// An event that is due to be sent.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The hook's number.
    pub hook: i64,
    /// Where to.
    pub url: String,
    /// What signs it.
    pub secret: Secret,
    /// How often it was tried.
    pub tries: i64,
    /// Until when other hubs leave it alone.
    pub until: Epoch,
    /// What to send.
    pub event: EventRow,
}

fn audit_row(row: &Row) -> Result<AuditRow, Problem> {
    Ok(AuditRow {
        id: row.int("id")?,
        moment: row.epoch("moment")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        subject: row.text("subject")?,
        from_state: row.opt_text("from_state")?,
        to_state: row.opt_text("to_state")?,
        version: row.opt_int("version")?,
        reason: row.opt_text("reason")?,
        detail: row.json("detail")?,
    })
}

fn event_row(row: &Row) -> Result<EventRow, Problem> {
    Ok(EventRow {
        id: row.int("id")?,
        moment: row.epoch("moment")?,
        kind: row.text("kind")?,
        subject: row.text("subject")?,
        person: row.opt_parse("person")?,
        server: row.opt_parse("server")?,
        payload: row.json("payload")?,
    })
}

impl Tx {
    /// Writes down something that is not a booking's change, when this transaction commits.
    pub fn note(&mut self, action: &str, subject: String, reason: Option<String>, detail: Value) {
        let (from, to, version) = (None, None, None);
        self.audit.push(NewAudit { action: action.to_owned(), subject, from, to, version, reason, detail });
    }

    /// Notes when the change that was made last happened by its maker's clock: the hub may hear of it later.
    pub fn happened(&mut self, moment: Epoch) {
        if let Some(detail) = self.audit.last_mut().and_then(|row| row.detail.as_object_mut()) {
            detail.insert("happened".to_owned(), serde_json::json!(moment));
        }
    }

    /// Tells something, when this transaction commits.
    pub fn tell(
        &mut self,
        kind: &str,
        subject: String,
        person: Option<&PersonId>,
        server: Option<&ServerId>,
        payload: Value,
    ) {
        self.events.push(NewEvent {
            kind: kind.to_owned(),
            subject,
            person: person.map(ToString::to_string),
            server: server.map(ToString::to_string),
            payload,
        });
    }

    pub(super) async fn flush_records(&mut self) -> Result<(), Problem> {
        let (actor, now) = (self.actor.clone(), self.now);
        for row in std::mem::take(&mut self.audit) {
            let sql = "INSERT INTO audit \
                       (moment, actor, action, subject, from_state, to_state, version, reason, detail, person) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
            let (person, detail) = (row.detail["person"].as_str().map(str::to_owned), row.detail.to_string());
            let (from, to, version, reason) = (row.from, row.to, row.version, row.reason);
            let values = args![now, actor.as_str(), row.action, row.subject, from, to, version, reason, detail, person];
            self.run(sql, values).await?;
        }
        for event in std::mem::take(&mut self.events) {
            let sql = "INSERT INTO events (moment, kind, subject, person, server, payload) \
                       VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
            let payload = event.payload.to_string();
            let row = self.one(sql, args![now, event.kind, event.subject, event.person, event.server, payload]).await?;
            if let Some(row) = row {
                let sql =
                    "INSERT INTO deliveries (event, hook, next_try) SELECT $1, id, $2 FROM hooks WHERE active = 1";
                self.run(sql, args![row.int("id")?, now]).await?;
            }
        }
        Ok(())
    }

    /// Audit rows after number `after`, oldest first, of one subject or of all, at most `most`.
    pub async fn audit_after(
        &mut self,
        after: i64,
        subject: Option<String>,
        most: i64,
    ) -> Result<Vec<AuditRow>, Problem> {
        let sql =
            "SELECT * FROM audit WHERE id > $1 AND (CAST($2 AS TEXT) IS NULL OR subject = $2) ORDER BY id LIMIT $3";
        self.all(sql, args![after, subject, most]).await?.iter().map(audit_row).collect()
    }

    /// The newest audit rows, newest first, of one subject, one actor or all.
    ///
    /// Of a person, `person:LOGIN`, also those of other subjects that concern them, as a link or a slot that they were given.
    pub async fn audit_newest(
        &mut self,
        subject: Option<String>,
        actor: Option<String>,
        most: i64,
    ) -> Result<Vec<AuditRow>, Problem> {
        let rows = match subject {
            Some(subject) => {
                let person = subject.strip_prefix("person:").map(str::to_owned);
                self.all(NEWEST_OF, args![subject, actor, most, person]).await?
            }
            None => {
                let sql =
                    "SELECT * FROM audit WHERE (CAST($1 AS TEXT) IS NULL OR actor = $1) ORDER BY id DESC LIMIT $2";
                self.all(sql, args![actor, most]).await?
            }
        };
        rows.iter().map(audit_row).collect()
    }

    /// Events after number `after`, oldest first, at most `most`.
    pub async fn events_after(&mut self, after: i64, most: i64) -> Result<Vec<EventRow>, Problem> {
        let sql = "SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2";
        self.all(sql, args![after, most]).await?.iter().map(event_row).collect()
    }

    /// The newest event's number; 0 when there is none.
    pub async fn last_event(&mut self) -> Result<i64, Problem> {
        let row = self.one("SELECT coalesce(max(id), 0) AS id FROM events", vec![]).await?;
        row.map_or(Ok(0), |r| r.int("id"))
    }

    /// Adds a webhook.
    pub async fn add_hook(&mut self, url: &str, secret: &Secret) -> Result<i64, Problem> {
        let sql = "INSERT INTO hooks (url, secret) VALUES ($1, $2) RETURNING id";
        let row = self.one(sql, args![url, secret.expose()]).await?;
        let id = row.map_or(Ok(0), |r| r.int("id"))?;
        // The rest of the address may hold a token of the other side, and teachers read the audit.
        let host = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
        self.note("hook.add", format!("hook:{id}"), None, serde_json::json!({ "host": host }));
        Ok(id)
    }

    /// What signs the messages of a webhook that is in use.
    pub async fn hook_secret(&mut self, id: i64) -> Result<Secret, Problem> {
        let row = self.one("SELECT secret FROM hooks WHERE id = $1 AND active = 1", args![id]).await?;
        let row = row.ok_or_else(|| Problem::new(Code::HubUnknown, format!("there is no webhook {id}")))?;
        row.text("secret").map(Secret::new)
    }

    /// All webhooks.
    pub async fn hooks(&mut self) -> Result<Vec<Hook>, Problem> {
        let rows = self.all("SELECT id, url, active FROM hooks ORDER BY id", vec![]).await?;
        rows.iter().map(|r| Ok(Hook { id: r.int("id")?, url: r.text("url")?, active: r.int("active")? == 1 })).collect()
    }

    /// Stops using a webhook; whether there was one.
    pub async fn drop_hook(&mut self, id: i64) -> Result<bool, Problem> {
        let gone = self.run("UPDATE hooks SET active = 0 WHERE id = $1 AND active = 1", args![id]).await? == 1;
        if gone {
            self.run(
                "UPDATE deliveries SET done = $2, error = 'the hook was removed' WHERE hook = $1 AND done IS NULL",
                args![id, self.now],
            )
            .await?;
            self.note("hook.remove", format!("hook:{id}"), None, Value::Null);
        }
        Ok(gone)
    }

    /// Whether any delivery is due.
    pub async fn has_deliveries(&mut self) -> Result<bool, Problem> {
        let sql = concat!("SELECT d.event", due!(), "LIMIT 1");
        Ok(self.one(sql, args![self.now]).await?.is_some())
    }

    /// Deliveries that are due, at most `each` of a hook, so that one with many leaves room for the others; they are kept
    /// from other hubs until `lease` seconds from now, and so is what comes after them.
    pub async fn take_deliveries(&mut self, each: i64, lease: i64) -> Result<Vec<Delivery>, Problem> {
        // One hub after the other: what is committed while another one takes could be taken before what that one has.
        self.lock("SELECT pg_advisory_xact_lock(hashtext($1))", "kubecamp-deliveries").await?;
        let sql = concat!(
            "SELECT t.hook, t.url, t.secret, t.tries, e.id, e.moment, e.kind, e.subject, e.person, e.server, e.payload \
             FROM (SELECT d.hook, d.event, d.tries, h.url, h.secret, \
                   row_number() OVER (PARTITION BY d.hook ORDER BY d.event) AS place",
            due!(),
            ") AS t JOIN events AS e ON e.id = t.event WHERE t.place <= $2 ORDER BY e.id LIMIT 200"
        );
        let now = self.now;
        let rows = self.all(sql, args![now, each]).await?;
        let mut due = vec![];
        for row in &rows {
            let (event, hook) = (event_row(row)?, row.int("hook")?);
            let sql = "UPDATE deliveries SET next_try = $3 WHERE event = $1 AND hook = $2 AND done IS NULL AND next_try <= $4";
            let until = now + lease;
            if self.run(sql, args![event.id, hook, until, now]).await? == 1 {
                let (url, secret) = (row.text("url")?, Secret::new(row.text("secret")?));
                due.push(Delivery { hook, url, secret, tries: row.int("tries")?, until, event });
            }
        }
        Ok(due)
    }

    /// Gives back deliveries that were taken and not tried: they are due again at `at`, and hold up what comes after them no
    /// longer than that.
    pub async fn return_deliveries(&mut self, untried: &[Delivery], at: Epoch) -> Result<(), Problem> {
        for one in untried {
            // One whose time was over may be another hub's by now.
            let sql =
                "UPDATE deliveries SET next_try = $4 WHERE event = $1 AND hook = $2 AND done IS NULL AND next_try = $3";
            self.run(sql, args![one.event.id, one.hook, one.until, at]).await?;
        }
        Ok(())
    }

    /// Notes how a delivery went: `error` none is done, else it is tried again at `next`, or given up without one.
    pub async fn delivered(
        &mut self,
        event: i64,
        hook: i64,
        error: Option<String>,
        next: Option<Epoch>,
    ) -> Result<(), Problem> {
        let now = self.now;
        let done = if error.is_some() && next.is_some() { None } else { Some(now) };
        // One whose hook was removed meanwhile is done already, and must not be due again.
        let sql = "UPDATE deliveries SET tries = tries + 1, done = $3, error = $4, next_try = $5 \
                   WHERE event = $1 AND hook = $2 AND done IS NULL";
        self.run(sql, args![event, hook, done, error, next.unwrap_or(now)]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::Store;

    #[tokio::test]
    async fn the_audit_of_a_person_is_what_concerns_them_and_read_by_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        tx.note("person.add", "person:amy".to_owned(), None, serde_json::json!({ "name": "Amy" }));
        tx.note("token.add", "token:t1".to_owned(), None, serde_json::json!({ "kind": "link", "person": "amy" }));
        tx.note("group.join", "group:red".to_owned(), None, serde_json::json!({ "person": "bob" }));
        tx.note("agent.plan-taken", "server:amy".to_owned(), None, Value::Null);
        tx.flush_records().await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        let asked = [
            (some("person:amy"), None, 9, "token.add person.add"),
            (some("person:amy"), None, 1, "token.add"),
            (some("person:amy"), some("person:tom"), 9, ""),
            (some("person:bob"), some("console"), 9, "group.join"),
            (some("group:red"), None, 9, "group.join"),
            (some("amy"), None, 9, ""),
            (None, some("console"), 2, "agent.plan-taken group.join"),
        ];
        for (subject, actor, most, want) in asked {
            let rows = tx.audit_newest(subject.clone(), actor, most).await.unwrap();
            assert_eq!(rows.iter().map(|row| row.action.as_str()).collect::<Vec<_>>().join(" "), want, "{subject:?}");
        }
        let plan = &*format!("EXPLAIN QUERY PLAN {NEWEST_OF}").leak();
        let plan = tx.all(plan, args!["person:amy", None::<String>, 9_i64, "amy"]).await.unwrap();
        let plan = plan.iter().map(|row| row.text("detail").unwrap()).collect::<String>();
        assert!(plan.contains("audit_by_subject (subject=?)") && plan.contains("audit_by_person (person=?)"), "{plan}");
    }

    #[tokio::test]
    async fn a_webhook_that_is_removed_while_it_is_served_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        let hook = tx.add_hook("http://127.0.0.1:9/", &Secret::new("kcw_x")).await.unwrap();
        tx.tell("server.changed", "server:one".to_owned(), None, None, serde_json::json!({}));
        tx.flush_records().await.unwrap();
        let due = tx.take_deliveries(25, 60).await.unwrap();
        assert_eq!(due.len(), 1);
        assert!(tx.drop_hook(hook).await.unwrap());
        tx.delivered(due[0].event.id, hook, Some("it is away".to_owned()), Some(Epoch(1))).await.unwrap();
        assert!(!tx.has_deliveries().await.unwrap());
        // As where an event was told in the very moment of the removal.
        tx.run("UPDATE deliveries SET done = NULL, next_try = 0", vec![]).await.unwrap();
        assert!(!tx.has_deliveries().await.unwrap());
        assert!(tx.take_deliveries(25, 60).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_a_round_took_and_did_not_try_holds_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        let hook = tx.add_hook("http://127.0.0.1:9/", &Secret::new("kcw_x")).await.unwrap();
        for _ in 0..40 {
            tx.tell("server.changed", "server:one".to_owned(), None, None, serde_json::json!({}));
        }
        tx.flush_records().await.unwrap();
        let due = tx.take_deliveries(25, 60).await.unwrap();
        for one in &due[..10] {
            tx.delivered(one.event.id, hook, None, None).await.unwrap();
        }
        tx.return_deliveries(&due[10..], Epoch(12)).await.unwrap();
        tx.now = Epoch(11);
        assert!(!tx.has_deliveries().await.unwrap(), "nothing goes before them");
        tx.now = Epoch(12);
        let next = tx.take_deliveries(25, 60).await.unwrap();
        let ids = |all: &[Delivery]| all.iter().map(|one| one.event.id).collect::<Vec<i64>>();
        assert_eq!((next.len(), &ids(&next)[..15]), (25, &ids(&due[10..])[..]));
        assert!(next.iter().all(|one| one.tries == 0));
        // Who took them first has them no more.
        tx.return_deliveries(&due[10..], Epoch(12)).await.unwrap();
        assert!(!tx.has_deliveries().await.unwrap());
    }

    #[tokio::test]
    async fn what_comes_after_a_delivery_that_is_under_way_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        let hook = tx.add_hook("http://127.0.0.1:9/", &Secret::new("kcw_x")).await.unwrap();
        for _ in 0..60 {
            tx.tell("server.changed", "server:one".to_owned(), None, None, serde_json::json!({}));
        }
        tx.flush_records().await.unwrap();
        let mut last = 0;
        for many in [25, 25, 10] {
            assert!(tx.has_deliveries().await.unwrap());
            let due = tx.take_deliveries(25, 60).await.unwrap();
            assert!(!tx.has_deliveries().await.unwrap() && tx.take_deliveries(25, 60).await.unwrap().is_empty());
            let ids: Vec<i64> = due.iter().map(|one| one.event.id).collect();
            assert!(ids.len() == many && ids[0] > last && ids.is_sorted(), "{ids:?}");
            last = ids[many - 1];
            // What was tried and refused comes again later, and holds up nobody.
            tx.delivered(ids[0], hook, Some("it answered 500".to_owned()), Some(Epoch(11))).await.unwrap();
            for id in &ids[1..] {
                tx.delivered(*id, hook, None, None).await.unwrap();
            }
        }
        tx.now = Epoch(11);
        assert_eq!(tx.take_deliveries(25, 60).await.unwrap().len(), 3);
    }
}
