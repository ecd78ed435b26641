use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Connections at a time, where the system lets a process have that many; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Open files for all else: the database, webhooks, the listener, files that are read.
const FOR_ALL_ELSE: usize = 64;
/// Event streams of one person: a few pages in each of a few browsers, and programs.
const STREAMS_EACH: usize = 16;

/// So many at a time, and so many of each: nobody alone can fill it.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    each: usize,
    inside: Mutex<HashMap<String, usize>>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// This one has all that one may have.
    Each(usize),
    /// All are taken.
    All,
}

/// A place in a room, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    who: String,
}

impl Room {
    pub fn new(most: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { most, each, inside: Mutex::new(HashMap::new()) })
    }

    /// Of event streams, where there may be so many connections: the others are for requests.
    pub fn for_streams(connections: usize) -> Arc<Self> {
        Self::new((connections / 2).max(1), STREAMS_EACH)
    }

    /// Of connections by the addresses that they come from: a class of hundreds behind one address
    /// fits, and several addresses together do not take all.
    pub fn for_addresses(connections: usize) -> Arc<Self> {
        Self::new(connections, (connections / 4).max(1))
    }

    pub fn enter(self: &Arc<Self>, who: &str) -> Result<Place, Full> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.get(who).is_some_and(|n| *n >= self.each) {
            return Err(Full::Each(self.each));
        }
        if inside.values().sum::<usize>() >= self.most {
            return Err(Full::All);
        }
        *inside.entry(who.to_owned()).or_default() += 1;
        Ok(Place { room: Arc::clone(self), who: who.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.room.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = inside.get_mut(&self.who) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                inside.remove(&self.who);
            }
        }
    }
}

/// Lets this process open as many files as it may; a system's usual limit is for programs without clients.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// How many connections this process can hold, so that it never runs out of open files.
pub(super) fn most_connections() -> usize {
    within(getrlimit(Resource::Nofile).current)
}

fn within(open_files: Option<u64>) -> usize {
    let files = open_files.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    files.saturating_sub(FOR_ALL_ELSE).clamp(16, MOST_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_alone_fills_a_room() {
        let room = Room::new(3, 2);
        let (first, _second) = (room.enter("amy").unwrap(), room.enter("amy").unwrap());
        assert_eq!(room.enter("amy").unwrap_err(), Full::Each(2));
        let _bob = room.enter("bob").unwrap();
        assert_eq!(room.enter("cem").unwrap_err(), Full::All);
        drop(first);
        let _cem = room.enter("cem").unwrap();
        assert_eq!(room.inside.lock().unwrap().len(), 3);
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!([Some(200), Some(1024), Some(1 << 20), None].map(within), [136, 960, 4096, 4096]);
        assert_eq!(within(Some(20)), 16);
    }
}
