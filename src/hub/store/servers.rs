use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    about::changed,
    tx::{Row, Tx},
    value::{Arg, args},
};
use crate::{
    core::{Bytes, Code, MIB, Problem},
    hub::domain::{BookingId, Epoch, Health, Maintenance, Server, ServerId, Window},
};

/// That a place cannot be proven clean after a booking that is over, in the audit.
const UNCLEAN: &str = "agent.unclean";
/// That an agent did not take its plan, and that it does again, in the audit.
const PLAN_REFUSED: &str = "agent.plan-refused";
const PLAN_TAKEN: &str = "agent.plan-taken";
/// That it was proven clean since, in the audit.
const CLEAN: &str = "agent.clean";

fn server(row: &Row) -> Result<Server, Problem> {
    let labels: Vec<String> = row.json("labels")?;
    Ok(Server {
        id: row.parse("id")?,
        address: row.text("address")?,
        course: row.opt_parse("course")?,
        cores: u32::try_from(row.int("cores")?).unwrap_or(0),
        memory: mebibytes(row.int("memory")?),
        disk: row.opt_int("disk")?.map(mebibytes),
        labels: labels.into_iter().collect(),
        opening: row.parse("opening")?,
        zone: row.parse("zone")?,
        buffer: row.int("buffer")?,
        mode: row.word("mode")?,
        health: row.word("health")?,
        health_note: row.opt_text("health_note")?,
        occupant: row.opt_parse("occupant")?,
        revision: row.int("revision")?,
        issued: row.int("issued")?,
        acked: row.int("acked")?,
        seen: row.opt_epoch("seen")?,
        clock_offset: row.int("clock_offset")?,
        makes_labs: row.opt_int("makes_labs")?.map(|makes| makes == 1),
        version: row.int("version")?,
    })
}

fn mebibytes(number: i64) -> Bytes {
    Bytes(u64::try_from(number).unwrap_or(0) * MIB)
}

fn maintenance(row: &Row) -> Result<Maintenance, Problem> {
    let window = Window { starts: row.epoch("starts")?, ends: row.epoch("ends")? };
    Ok(Maintenance { id: row.int("id")?, server: row.parse("server")?, window, reason: row.text("reason")? })
}

/// There is no server of this name.
pub fn unknown_server(id: &ServerId) -> Problem {
    Problem::new(Code::HubUnknown, format!("there is no server {id}"))
        .hint("kubecamp hub server list names all servers.")
}

impl Tx {
    /// Adds a server.
    ///
    /// One of this name that was removed begins anew: its agent's reports too.
    pub async fn add_server(&mut self, new: &Server) -> Result<(), Problem> {
        let sql = "INSERT INTO servers (id, address, course, cores, memory, labels, opening, zone, buffer, mode, health, disk) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO UPDATE SET \
                   address = excluded.address, course = excluded.course, cores = excluded.cores, \
                   memory = excluded.memory, labels = excluded.labels, opening = excluded.opening, \
                   zone = excluded.zone, buffer = excluded.buffer, mode = excluded.mode, health = excluded.health, \
                   disk = excluded.disk, \
                   health_note = NULL, occupant = NULL, issued = 0, acked = 0, seen = NULL, clock_offset = 0, \
                   makes_labs = NULL, reported = 0, host_keys = '[]', removed = NULL, revision = servers.revision + 1, version = servers.version + 1 \
                   WHERE servers.removed IS NOT NULL";
        if self.run(sql, Self::server_values(new)).await? != 1 {
            return Err(Problem::new(Code::HubExists, format!("server {} exists already", new.id)));
        }
        self.server_changed(new, "server.add", None, json!(new));
        Ok(())
    }

    /// Changes what an admin sets of a server; health and what the agent reports have functions of their own.
    pub async fn change_server(&mut self, next: &Server) -> Result<(), Problem> {
        let before = self.server(&next.id).await?;
        let sql = "UPDATE servers SET address = $2, course = $3, cores = $4, memory = $5, labels = $6, opening = $7, \
                   zone = $8, buffer = $9, mode = $10, disk = $12, version = version + 1, revision = revision + 1 \
                   WHERE id = $1 AND health = $11 AND version = $13";
        let mut values = Self::server_values(next);
        values.extend(args![next.version]);
        if self.run(sql, values).await? != 1 {
            return Err(Problem::new(Code::BookStale, format!("server {} was changed in between", next.id)));
        }
        self.server_changed(next, "server.change", None, changed(&before, next));
        Ok(())
    }

    /// Removes a server.
    ///
    /// Its row stays for what was booked on it; nothing finds it any more.
    pub async fn remove_server(&mut self, old: &Server) -> Result<(), Problem> {
        let (id, now) = (old.id.to_string(), self.now);
        let sql = "UPDATE servers SET removed = $2, occupant = NULL, version = version + 1, revision = revision + 1 \
                   WHERE id = $1";
        self.run(sql, args![id.clone(), now]).await?;
        self.run("DELETE FROM holds WHERE server = $1", args![id.clone()]).await?;
        self.run("DELETE FROM labs WHERE server = $1", args![id.clone()]).await?;
        self.run("DELETE FROM maintenance WHERE server = $1 AND ends > $2", args![id, now]).await?;
        let (subject, payload) = (format!("server:{}", old.id), json!(old));
        self.note("server.remove", subject.clone(), None, payload.clone());
        self.tell("server.removed", subject, None, Some(&old.id), payload);
        Ok(())
    }

    fn server_values(new: &Server) -> Vec<Arg> {
        args![
            new.id.to_string(),
            new.address.clone(),
            new.course.as_ref().map(ToString::to_string),
            i64::from(new.cores),
            (new.memory.0 / MIB).cast_signed(),
            json!(new.labels).to_string(),
            new.opening.to_string(),
            new.zone.to_string(),
            new.buffer,
            new.mode.as_str(),
            new.health.as_str(),
            new.disk.map(|disk| (disk.0 / MIB).cast_signed()),
        ]
    }

    fn server_changed(&mut self, server: &Server, action: &str, reason: Option<String>, detail: Value) {
        let subject = format!("server:{}", server.id);
        self.note(action, subject.clone(), reason, detail);
        self.tell("server.changed", subject, None, Some(&server.id), json!(server));
    }

    /// A server by its name.
    pub async fn server(&mut self, id: &ServerId) -> Result<Server, Problem> {
        let row = self.one("SELECT * FROM servers WHERE id = $1 AND removed IS NULL", args![id.to_string()]).await?;
        row.map_or_else(|| Err(unknown_server(id)), |r| server(&r))
    }

    /// A server by its name, locked until the transaction ends.
    ///
    /// Servers before people, in the order of their names.
    pub async fn lock_server(&mut self, id: &ServerId) -> Result<Server, Problem> {
        self.lock("SELECT 1 FROM servers WHERE id = $1 FOR UPDATE", id.as_str()).await?;
        self.server(id).await
    }

    /// The keys by which a server's sshd proves itself, as OpenSSH lines.
    pub async fn host_keys(&mut self, id: &ServerId) -> Result<Vec<String>, Problem> {
        let row = self.one("SELECT host_keys FROM servers WHERE id = $1", args![id.to_string()]).await?;
        row.map_or_else(|| Ok(vec![]), |r| r.json("host_keys"))
    }

    /// Replaces a server's host keys.
    pub async fn set_host_keys(&mut self, id: &ServerId, keys: &[String]) -> Result<(), Problem> {
        let sql = "UPDATE servers SET host_keys = $2 WHERE id = $1";
        self.run(sql, args![id.to_string(), json!(keys).to_string()]).await?;
        self.note("server.host-keys", format!("server:{id}"), None, json!({ "keys": keys }));
        Ok(())
    }

    /// All servers by name.
    pub async fn servers(&mut self) -> Result<Vec<Server>, Problem> {
        let sql = "SELECT * FROM servers WHERE removed IS NULL ORDER BY id";
        self.all(sql, vec![]).await?.iter().map(server).collect()
    }

    /// The longest time that any server keeps free between slots, as [`Server::buffer`]; 0 without servers.
    pub async fn widest_buffer(&mut self) -> Result<i64, Problem> {
        let row = self.one("SELECT coalesce(max(buffer), 0) AS n FROM servers WHERE removed IS NULL", vec![]).await?;
        row.map_or(Ok(0), |row| row.int("n"))
    }

    /// Sets a server's health; a quarantine ends only by an admin.
    pub async fn set_health(&mut self, id: &ServerId, health: Health, note: Option<String>) -> Result<Server, Problem> {
        let sql = "UPDATE servers SET health = $2, health_note = $3, version = version + 1, revision = revision + 1 WHERE id = $1";
        self.run(sql, args![id.to_string(), health.as_str(), note.clone()]).await?;
        let after = self.server(id).await?;
        self.server_changed(&after, "server.health", note, json!(after));
        Ok(after)
    }

    /// Makes `booking` the occupant, if there is none or it is the occupant already; whether it is now.
    pub async fn occupy(&mut self, id: &ServerId, booking: &BookingId) -> Result<bool, Problem> {
        let sql = "UPDATE servers SET occupant = $2 WHERE id = $1 AND (occupant IS NULL OR occupant = $2)";
        Ok(self.run(sql, args![id.to_string(), booking.to_string()]).await? == 1)
    }

    /// Ends the occupation by `booking`; whether it was the occupant.
    pub async fn vacate(&mut self, id: &ServerId, booking: &BookingId) -> Result<bool, Problem> {
        let sql = "UPDATE servers SET occupant = NULL WHERE id = $1 AND occupant = $2";
        Ok(self.run(sql, args![id.to_string(), booking.to_string()]).await? == 1)
    }

    /// Clears whoever occupies a server: an admin has looked at it.
    pub async fn clear_occupant(&mut self, id: &ServerId) -> Result<(), Problem> {
        self.run("UPDATE servers SET occupant = NULL WHERE id = $1", args![id.to_string()]).await.map(drop)
    }

    /// Notes that the agent was heard, `seen` at last to be alive: what it carries out and how far its clock is off.
    pub async fn heard(&mut self, id: &ServerId, seen: Option<Epoch>, acked: i64, offset: i64) -> Result<(), Problem> {
        let sql = "UPDATE servers SET seen = $2, clock_offset = $3, \
                   acked = CASE WHEN $4 > acked AND $4 <= issued THEN $4 ELSE acked END WHERE id = $1";
        self.run(sql, args![id.to_string(), seen, offset, acked]).await?;
        let sql = "DELETE FROM holds WHERE server = $1 AND (busy_until <= $2 OR revision <= \
                   (SELECT acked FROM servers WHERE id = $1))";
        self.run(sql, args![id.to_string(), self.now]).await.map(drop)
    }

    /// Notes whether a server's agent makes labs.
    pub async fn note_makes_labs(&mut self, id: &ServerId, makes: bool) -> Result<(), Problem> {
        let sql = "UPDATE servers SET makes_labs = $2 WHERE id = $1";
        self.run(sql, args![id.to_string(), i64::from(makes)]).await?;
        self.note("server.makes-labs", format!("server:{id}"), None, json!({ "makes": makes }));
        Ok(())
    }

    /// Goes on with a server's plans above `carried_out`, a revision that its agent has and this database never gave it.
    pub async fn lift_revision(&mut self, server: &Server, carried_out: i64) -> Result<i64, Problem> {
        let next = carried_out.saturating_add(1);
        let sql = "UPDATE servers SET revision = $2 WHERE id = $1 AND revision < $2";
        self.run(sql, args![server.id.to_string(), next]).await?;
        let detail = json!({ "agent": carried_out, "hub": server.revision, "issued": server.issued });
        self.note("server.revision", format!("server:{}", server.id), None, detail);
        Ok(next)
    }

    /// Notes that a plan of this revision is handed to the agent.
    pub async fn issued(&mut self, id: &ServerId, revision: i64) -> Result<(), Problem> {
        let sql = "UPDATE servers SET issued = $2 WHERE id = $1 AND issued < $2";
        self.run(sql, args![id.to_string(), revision]).await.map(drop)
    }

    /// The number of the last report of the agent that was applied.
    pub async fn reported(&mut self, id: &ServerId) -> Result<i64, Problem> {
        let row = self.one("SELECT reported FROM servers WHERE id = $1", args![id.to_string()]).await?;
        row.map_or(Ok(0), |r| r.int("reported"))
    }

    /// Notes the number of the last report that was applied.
    pub async fn set_reported(&mut self, id: &ServerId, number: i64) -> Result<(), Problem> {
        let sql = "UPDATE servers SET reported = $2 WHERE id = $1 AND reported < $2";
        self.run(sql, args![id.to_string(), number]).await.map(drop)
    }

    /// Notes that a server's agent begins anew, as after a reinstallation: it counts its reports from 1 again, and tells
    /// which labs it keeps.
    ///
    /// One that goes on where it was is harmed by neither.
    pub async fn agent_anew(&mut self, id: &ServerId) -> Result<(), Problem> {
        self.run("UPDATE servers SET reported = 0 WHERE id = $1", args![id.to_string()]).await?;
        self.run("DELETE FROM labs WHERE server = $1", args![id.to_string()]).await.map(drop)
    }

    /// Notes that a server's place cannot be proven clean after a booking that is over.
    pub fn note_unclean(&mut self, id: &ServerId, booking: &BookingId, why: Option<String>) {
        self.note(UNCLEAN, format!("server:{id}"), why, json!({ "booking": booking }));
    }

    /// Notes that the place is proven clean after all.
    pub fn note_clean(&mut self, id: &ServerId, booking: &BookingId) {
        self.note(CLEAN, format!("server:{id}"), None, json!({ "booking": booking }));
    }

    /// The bookings after which the place could not be proven clean since a moment, and was not proven clean later.
    pub async fn unclean(&mut self, id: &ServerId, since: Epoch) -> Result<BTreeSet<BookingId>, Problem> {
        let sql =
            "SELECT action, detail FROM audit WHERE subject = $1 AND action IN ($2, $3) AND moment > $4 ORDER BY id";
        let mut found = BTreeSet::new();
        for row in self.all(sql, args![format!("server:{id}"), UNCLEAN, CLEAN, since]).await? {
            let detail: Value = row.json("detail")?;
            let Ok(booking) = serde_json::from_value::<BookingId>(detail["booking"].clone()) else { continue };
            if row.text("action")? == UNCLEAN {
                found.insert(booking);
            } else {
                found.remove(&booking);
            }
        }
        Ok(found)
    }

    /// Notes why a server's agent does not take its plan, or that it does again.
    pub fn note_plan(&mut self, id: &ServerId, refused: Option<String>) {
        let action = if refused.is_some() { PLAN_REFUSED } else { PLAN_TAKEN };
        self.note(action, format!("server:{id}"), refused, Value::Null);
    }

    /// Why a server's agent does not take its plan, where it said so last.
    pub async fn plan_refused(&mut self, id: &ServerId) -> Result<Option<String>, Problem> {
        let sql = "SELECT reason FROM audit WHERE subject = $1 AND action IN ($2, $3) ORDER BY id DESC LIMIT 1";
        let row = self.one(sql, args![format!("server:{id}"), PLAN_REFUSED, PLAN_TAKEN]).await?;
        row.map_or(Ok(None), |row| row.opt_text("reason"))
    }

    /// Adds a maintenance window.
    pub async fn add_maintenance(
        &mut self,
        id: &ServerId,
        window: Window,
        reason: &str,
    ) -> Result<Maintenance, Problem> {
        let sql = "INSERT INTO maintenance (server, starts, ends, reason) VALUES ($1, $2, $3, $4) RETURNING *";
        let row = self.one(sql, args![id.to_string(), window.starts, window.ends, reason]).await?;
        let row = row.ok_or_else(|| Problem::new(Code::HubDatabase, "the database returned no row"))?;
        let new = maintenance(&row)?;
        self.note("server.maintenance", format!("server:{id}"), Some(reason.to_owned()), json!(new));
        self.tell("server.changed", format!("server:{id}"), None, Some(id), json!(new));
        Ok(new)
    }

    /// Ends a maintenance window before its time; whether there was one.
    pub async fn drop_maintenance(&mut self, number: i64) -> Result<bool, Problem> {
        let row = self.one("DELETE FROM maintenance WHERE id = $1 RETURNING *", args![number]).await?;
        let Some(row) = row else { return Ok(false) };
        let old = maintenance(&row)?;
        let (subject, payload) = (format!("server:{}", old.server), json!(old));
        self.note("server.maintenance-end", subject.clone(), None, payload.clone());
        self.tell("server.changed", subject, None, Some(&old.server), payload);
        Ok(true)
    }

    /// Maintenance that touches a window, by start.
    pub async fn maintenance(&mut self, window: Window) -> Result<Vec<Maintenance>, Problem> {
        let sql = "SELECT * FROM maintenance WHERE ends > $1 AND starts < $2 ORDER BY starts, id";
        self.all(sql, args![window.starts, window.ends]).await?.iter().map(maintenance).collect()
    }

    /// Servers whose agent was not heard since a moment.
    pub async fn silent(&mut self, since: Epoch) -> Result<Vec<Server>, Problem> {
        let sql = "SELECT * FROM servers WHERE issued > 0 AND seen < $1 AND removed IS NULL ORDER BY id";
        self.all(sql, args![since]).await?.iter().map(server).collect()
    }
}
