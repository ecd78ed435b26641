use std::collections::BTreeSet;

use russh::keys::ssh_key::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Caller, Desk,
    look::server_seen_by,
    reason, rehouse,
    transaction::{transact, transact_once},
};
use crate::{
    core::{Bytes, Code, Problem},
    hub::{
        domain::{
            Booking, BookingId, CourseId, Epoch, Health, Maintenance, Mode, OpeningHours, Server, ServerId, State, Who,
            Window, Zone, holds_all,
        },
        store::{Listing, Tx},
    },
};

/// What of a server's bookings that have not begun does not suit it any more, after it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Misfits {
    /// How many bookings that have not begun lie outside of its opening hours; they stay for the admin to settle.
    pub outside: usize,
    /// How many bookings that have not begun are of other courses than the one that it is for; they stay too.
    pub foreign: usize,
}

/// A server to be added or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// Its name.
    pub id: ServerId,
    /// Host name or address, with `:port` where it is not 22.
    pub address: String,
    /// The course that it is for; none is for all.
    #[serde(default)]
    pub course: Option<CourseId>,
    /// Cores.
    pub cores: u32,
    /// Memory.
    #[schema(value_type = String, example = "32GiB")]
    pub memory: Bytes,
    /// Disk for the machines of labs, 30 GiB each; none is not looked at.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "200GiB")]
    pub disk: Option<Bytes>,
    /// Words that a booking can ask for.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// When it is open; none is always.
    #[serde(default)]
    pub opening: OpeningHours,
    /// The zone of the opening hours and of the grid.
    #[serde(default = "Zone::utc")]
    pub zone: Zone,
    /// Seconds that stay free after each booking.
    #[serde(default = "ten_minutes")]
    pub buffer: i64,
    /// How it is used.
    pub mode: Mode,
}

/// Where a server's host keys are.
const HOST_KEYS: &str = "Send the lines of its /etc/ssh/ssh_host_*_key.pub.";

const fn ten_minutes() -> i64 {
    600
}

impl NewServer {
    fn row(&self, there: Option<&Server>, version: i64) -> Server {
        Server {
            id: self.id.clone(),
            address: self.address.clone(),
            course: self.course.clone(),
            cores: self.cores,
            memory: self.memory,
            disk: self.disk,
            labels: self.labels.clone(),
            opening: self.opening.clone(),
            zone: self.zone.clone(),
            buffer: self.buffer,
            mode: self.mode,
            health: there.map_or(Health::Healthy, |s| s.health),
            health_note: there.and_then(|s| s.health_note.clone()),
            occupant: there.and_then(|s| s.occupant.clone()),
            revision: there.map_or(1, |s| s.revision),
            issued: there.map_or(0, |s| s.issued),
            acked: there.map_or(0, |s| s.acked),
            seen: there.and_then(|s| s.seen),
            clock_offset: there.map_or(0, |s| s.clock_offset),
            makes_labs: there.and_then(|s| s.makes_labs),
            version,
        }
    }
}

/// Whether a server's occupant is a booking to which nothing can happen any more.
async fn is_over(tx: &mut Tx, occupant: Option<&BookingId>) -> Result<bool, Problem> {
    match occupant {
        Some(booking) => Ok(tx.booking(booking).await?.state.is_final()),
        None => Ok(false),
    }
}

/// Whether a server's occupant is a slot that has begun, and whose time is not over; or its agent, which is heard, clears up
/// behind it.
async fn is_at_work(tx: &mut Tx, server: &Server) -> Result<bool, Problem> {
    let Some(occupant) = &server.occupant else { return Ok(false) };
    let (booking, now) = (tx.booking(occupant).await?, tx.now());
    Ok(booking.state.is_begun() && (booking.window.ends > now || server.is_alive(now)))
}

impl Desk {
    /// Adds a server.
    ///
    /// A repeated `key` gets the first answer.
    pub async fn add_server(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        new: &NewServer,
    ) -> Result<Server, Problem> {
        self.write_server(caller, now, key, new, None).await
    }

    /// Adds a server, or changes it when `version` is the one that the caller has seen.
    ///
    /// What is booked stays booked: a change of opening hours, buffer or course counts for new bookings. The mode, and fewer
    /// cores or less memory, are refused while bookings are ahead, and a disk that does not hold them.
    pub async fn put_server(
        &self,
        caller: &Caller,
        now: Epoch,
        new: &NewServer,
        version: Option<i64>,
    ) -> Result<Server, Problem> {
        self.write_server(caller, now, None, new, version).await
    }

    async fn write_server(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        new: &NewServer,
        version: Option<i64>,
    ) -> Result<Server, Problem> {
        caller.needs_admin()?;
        new.row(None, 1).check()?;
        transact_once!(self, caller, now, key, ("server", new), |tx| {
            let there = tx.servers().await?.into_iter().find(|s| s.id == new.id);
            match (there, version) {
                // Whoever changes what they have seen does not mean to add it anew.
                (None, Some(_)) => {
                    return Err(Problem::new(Code::BookStale, format!("there is no server {} any more", new.id)));
                }
                (None, None) => {
                    let row = new.row(None, 1);
                    row.holds_a_lab()?;
                    tx.add_server(&row).await?;
                }
                (Some(there), None) => {
                    return Err(Problem::new(Code::HubExists, format!("server {} exists already", there.id)));
                }
                (Some(_), Some(version)) => {
                    let there = tx.lock_server(&new.id).await?;
                    let less_disk = new.disk.is_some_and(|disk| there.disk.is_none_or(|had| disk < had));
                    let smaller = new.mode != there.mode || new.cores < there.cores || new.memory < there.memory;
                    let next = new.row(Some(&there), version);
                    let ahead = tx.held(&new.id, Window { starts: now, ends: Epoch::LAST }).await?;
                    let tight = less_disk && !holds_all(&next, &ahead);
                    if (smaller && !ahead.is_empty()) || tight {
                        let why = if tight { ", and the disk does not hold them" } else { "" };
                        let are = if ahead.len() == 1 { "booking" } else { "bookings" };
                        let what = format!("server {} has {} {are} ahead{why}", new.id, ahead.len());
                        return Err(
                            Problem::new(Code::BookState, what).hint("Cancel them first, or wait until they are over.")
                        );
                    }
                    // One that is there and too small may still be changed otherwise.
                    if there.largest().is_some() {
                        next.holds_a_lab()?;
                    }
                    tx.change_server(&next).await?;
                }
            }
            tx.server(&new.id).await
        })
    }

    /// Removes a server that nobody holds or waits for, when `version` is the one that the caller has seen; none does so in
    /// any case.
    ///
    /// What was booked there stays in the records, and its agent's token ends. Where it is out of use, slots whose time has
    /// passed end with it, and where its agent is silent too, those that have begun: nobody would ever tell what became of
    /// them. While the agent is heard somebody may be at work there, and what it does at the end would be told to nobody.
    pub async fn remove_server(
        &self,
        caller: &Caller,
        now: Epoch,
        id: &ServerId,
        version: Option<i64>,
    ) -> Result<(), Problem> {
        caller.needs_admin()?;
        transact!(self, caller, now, |tx| {
            let there = tx.lock_server(id).await?;
            if version.is_some_and(|seen| seen != there.version) {
                return Err(Problem::new(Code::BookStale, format!("server {id} was changed in between")));
            }
            let want = Listing { server: Some(id.clone()), open: true, ..Listing::default() };
            let (out, alive) = (there.health != Health::Healthy, there.is_alive(now));
            let over = |b: &Booking| b.state.is_unbegun() && b.window.ends <= now;
            let (ended, open): (Vec<Booking>, Vec<Booking>) =
                tx.bookings(&want).await?.into_iter().partition(|b| out && (over(b) || (b.state.is_begun() && !alive)));
            if !open.is_empty() {
                let what = format!("server {id} has bookings or waits that are not over: {}", open.len());
                let hint = match out && open.iter().any(|b| b.state.is_begun()) {
                    true => {
                        "Its agent is heard. End what runs there with kubecamp book release ID --reason TEXT, and wait until \
                         that is done; where the server is gone, wait for two minutes."
                    }
                    false => {
                        "Take it out of use first, and close it until the last of them with kubecamp hub server maintenance: they \
                         move to other servers at once. Or cancel them."
                    }
                };
                return Err(Problem::new(Code::BookState, what).hint(hint));
            }
            for booking in ended {
                let (state, action) = match booking.state.is_begun() {
                    true => (State::Quarantined, "booking.quarantine"),
                    false => (State::Cancelled, "booking.cancel"),
                };
                let why = Some(format!("server {id} was removed"));
                let next = Booking { state, note: why.clone(), ..booking.clone() };
                tx.change_booking(&booking, next, Who::Teacher, action, why).await?;
            }
            tx.revoke_agent(id).await?;
            tx.remove_server(&there).await
        })
    }

    /// All servers.
    ///
    /// What keeps one in quarantine only teachers see.
    pub async fn servers(&self, caller: &Caller, now: Epoch) -> Result<Vec<Server>, Problem> {
        let all = self.store.read(now).await?.servers().await?;
        Ok(all.into_iter().map(|server| server_seen_by(caller, server)).collect())
    }

    /// A server by its name, as [`Desk::servers`] tells of it.
    pub async fn server(&self, caller: &Caller, now: Epoch, id: &ServerId) -> Result<Server, Problem> {
        Ok(server_seen_by(caller, self.store.read(now).await?.server(id).await?))
    }

    /// How many bookings that have not begun do not suit a server any more; they stay for the admin to settle.
    pub async fn misfits(&self, caller: &Caller, now: Epoch, id: &ServerId) -> Result<Misfits, Problem> {
        caller.needs_admin()?;
        let mut tx = self.store.read(now).await?;
        let server = tx.server(id).await?;
        let want = Listing { server: Some(id.clone()), open: true, ..Listing::default() };
        let ahead = tx.bookings(&want).await?;
        let count = |which: fn(&Server, &Booking) -> bool| ahead.iter().filter(|b| which(&server, b)).count();
        Ok(Misfits { outside: count(Server::is_closed_for), foreign: count(Server::is_foreign_to) })
    }

    /// Takes a server out of use or back into use, with a reason.
    ///
    /// Ending a quarantine also ends its occupation, and back in use it is no more occupied by what is over.
    ///
    /// A repeated `key` gets the first answer.
    pub async fn set_health(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &ServerId,
        health: Health,
        reason: &str,
    ) -> Result<Server, Problem> {
        caller.needs_admin()?;
        let reason = reason::stated(reason)?;
        transact_once!(self, caller, now, key, ("health", id, health, &reason), |tx| {
            let before = tx.lock_server(id).await?;
            let back = before.health != Health::Healthy && health == Health::Healthy;
            // Also where it was out of use in between: after a reinstallation nobody else would ever end it.
            // An admin may quarantine one in the midst of a slot, which goes on and ends by itself.
            let over = before.health == Health::Quarantined && !is_at_work(&mut tx, &before).await?;
            if back && (over || is_over(&mut tx, before.occupant.as_ref()).await?) {
                tx.clear_occupant(id).await?;
            }
            tx.set_health(id, health, Some(reason.clone())).await
        })
    }

    /// Replaces the keys by which a server's sshd proves itself; `book ssh` then trusts these and no others.
    pub async fn set_host_keys(
        &self,
        caller: &Caller,
        now: Epoch,
        id: &ServerId,
        lines: &[String],
    ) -> Result<Vec<String>, Problem> {
        caller.needs_admin()?;
        if lines.len() > 20 {
            return Err(Problem::new(Code::HubInvalid, "a server has 20 host keys at most").hint(HOST_KEYS));
        }
        let plain = lines.iter().map(|line| {
            let what = || format!("a host key of {id} is not a public SSH key");
            let bad = || Problem::new(Code::HubInvalid, what()).hint(HOST_KEYS);
            let mut key = PublicKey::from_openssh(line.trim()).map_err(|_| bad())?;
            key.set_comment("");
            key.to_openssh().map(|text| text.trim().to_owned()).map_err(|_| bad())
        });
        let keys: Vec<String> = plain.collect::<Result<_, _>>()?;
        transact!(self, caller, now, |tx| {
            tx.lock_server(id).await?;
            tx.set_host_keys(id, &keys).await
        })?;
        Ok(keys)
    }

    /// The keys by which a server's sshd proves itself; none where nobody told them.
    pub async fn host_keys(&self, _caller: &Caller, now: Epoch, id: &ServerId) -> Result<Vec<String>, Problem> {
        self.store.read(now).await?.host_keys(id).await
    }

    /// Closes a server for a while that is not over: in a year that was mistyped nobody would miss it.
    ///
    /// How many bookings of then have not begun is returned with it: the clerk moves each to another server that is free,
    /// or tells its holder. One of the very same time is refused. A repeated `key` gets the first answer.
    pub async fn add_maintenance(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &ServerId,
        window: Window,
        reason: &str,
    ) -> Result<(Maintenance, usize), Problem> {
        caller.needs_admin()?;
        let reason = reason::stated(reason)?;
        transact_once!(self, caller, now, key, ("maintenance", id, window, &reason), |tx| {
            tx.lock_server(id).await?;
            if window.ends <= now {
                return Err(Problem::new(Code::BookWindow, format!("a maintenance {window} is over already"))
                    .hint("Give an end that is ahead: check the day and the year."));
            }
            let same = tx.maintenance(window).await?.into_iter().find(|m| m.server == *id && m.window == window);
            if let Some(same) = same {
                let what = format!("server {id} is closed for all of {window} by maintenance {} already", same.id);
                return Err(Problem::new(Code::HubExists, what)
                    .hint(format!("For another reason end that one first: --end {}.", same.id)));
            }
            let made = tx.add_maintenance(id, window, &reason).await?;
            let then = Listing { server: Some(id.clone()), within: Some(window), open: true, ..Listing::default() };
            let booked = tx.bookings(&then).await?.iter().filter(|b| rehouse::is_ahead(b, now)).count();
            Ok((made, booked))
        })
    }

    /// Ends a maintenance before its time.
    pub async fn drop_maintenance(&self, caller: &Caller, now: Epoch, number: i64) -> Result<(), Problem> {
        caller.needs_admin()?;
        let gone = transact!(self, caller, now, |tx| tx.drop_maintenance(number).await)?;
        let none = || {
            Problem::new(Code::HubUnknown, format!("there is no maintenance {number}"))
                .hint("kubecamp hub server maintenance --list shows what is ahead.")
        };
        if gone { Ok(()) } else { Err(none()) }
    }

    /// Maintenance that touches a window.
    pub async fn maintenance(&self, _caller: &Caller, now: Epoch, window: Window) -> Result<Vec<Maintenance>, Problem> {
        self.store.read(now).await?.maintenance(window).await
    }
}
