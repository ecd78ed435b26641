use crate::{
    core::Problem,
    hub::{
        domain::{Beginning, SavedLab, Server, ServerId},
        store::Tx,
    },
    profile::Layout,
};

/// Servers with the lab that would run there, as who has these labs would take them: the order that they come in stays
/// where a saved lab decides nothing.
///
/// Those that nobody enrolled come last: as they are they open to nobody.
pub(super) fn preferred(mut all: Vec<(Server, Layout)>, labs: &[SavedLab]) -> Vec<(Server, Layout)> {
    all.sort_by_key(|(server, layout)| {
        (server.is_strange(), Beginning::rank(Beginning::of(labs, &server.id, *layout).as_ref()))
    });
    all
}

/// Somebody's labs as they count for a wish: where it names no layout, a server's saved lab is what is meant there.
pub(super) fn meant(labs: &[SavedLab], named: Option<Layout>, asked: Layout) -> Vec<SavedLab> {
    let own = |lab: &SavedLab| SavedLab { layout: if named.is_some() { lab.layout } else { asked }, ..lab.clone() };
    labs.iter().map(own).collect()
}

/// Locks servers in the order of their names, in whatever order they are looked at: two people who prefer different
/// servers never wait for each other.
pub(super) struct Locks {
    names: Vec<ServerId>,
    held: usize,
}

impl Locks {
    /// For servers that come by name, as the database gives them.
    pub fn new(by_name: &[(Server, Layout)]) -> Self {
        Self { names: by_name.iter().map(|(server, _)| server.id.clone()).collect(), held: 0 }
    }

    /// The server, locked with all that come before it by name.
    pub async fn take(&mut self, tx: &mut Tx, id: &ServerId) -> Result<Server, Problem> {
        let upto = self.names.iter().position(|name| name == id).map_or(0, |at| at + 1);
        let mut last = None;
        while self.held < upto {
            last = Some(tx.lock_server(&self.names[self.held]).await?);
            self.held += 1;
        }
        // One that was locked on the way to another is read again.
        match last {
            Some(server) => Ok(server),
            None => tx.server(id).await,
        }
    }
}
