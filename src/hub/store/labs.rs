use serde_json::json;

use super::{
    tx::{Row, Tx},
    value::args,
};
use crate::{
    core::Problem,
    hub::domain::{PersonId, SavedLab, ServerId},
};

fn lab(row: &Row) -> Result<SavedLab, Problem> {
    Ok(SavedLab {
        server: row.parse("server")?,
        person: row.parse("person")?,
        name: row.text("name")?,
        layout: row.parse("layout")?,
        since: row.epoch("since")?,
    })
}

impl Tx {
    /// Notes the lab that a server keeps for somebody, in place of the one before.
    pub async fn keep_lab(&mut self, lab: &SavedLab) -> Result<(), Problem> {
        let sql = "INSERT INTO labs (person, server, name, layout, since) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (person, server) DO UPDATE SET name = excluded.name, layout = excluded.layout, \
                   since = excluded.since";
        let (person, server) = (lab.person.to_string(), lab.server.to_string());
        self.run(sql, args![person, server, lab.name.clone(), lab.layout.to_string(), lab.since]).await?;
        self.note("agent.lab-kept", format!("server:{}", lab.server), None, json!(lab));
        Ok(())
    }

    /// Notes that a server keeps no lab for somebody any more; whether it kept one.
    pub async fn drop_lab(&mut self, server: &ServerId, person: &PersonId) -> Result<bool, Problem> {
        let sql = "DELETE FROM labs WHERE person = $1 AND server = $2";
        let gone = self.run(sql, args![person.to_string(), server.to_string()]).await? == 1;
        if gone {
            self.note("agent.lab-dropped", format!("server:{server}"), None, json!({ "person": person }));
        }
        Ok(gone)
    }

    /// The labs that a server keeps, by person.
    pub async fn labs_on(&mut self, server: &ServerId) -> Result<Vec<SavedLab>, Problem> {
        let sql = "SELECT * FROM labs WHERE server = $1 ORDER BY person";
        self.all(sql, args![server.to_string()]).await?.iter().map(lab).collect()
    }

    /// Forgets all labs that a server kept; how many they were.
    pub async fn drop_labs(&mut self, server: &ServerId) -> Result<u64, Problem> {
        let gone = self.run("DELETE FROM labs WHERE server = $1", args![server.to_string()]).await?;
        if gone > 0 {
            self.note("server.labs-gone", format!("server:{server}"), None, json!({ "labs": gone }));
        }
        Ok(gone)
    }

    /// Notes that a lab was saved again, if the server keeps one: of several that is the one to go on with.
    pub async fn lab_saved(&mut self, server: &ServerId, person: &PersonId) -> Result<(), Problem> {
        let sql = "UPDATE labs SET since = $3 WHERE person = $1 AND server = $2";
        self.run(sql, args![person.to_string(), server.to_string(), self.now]).await.map(drop)
    }

    /// Somebody's saved labs, by server.
    pub async fn labs_of(&mut self, person: &PersonId) -> Result<Vec<SavedLab>, Problem> {
        let sql = "SELECT * FROM labs WHERE person = $1 ORDER BY server";
        self.all(sql, args![person.to_string()]).await?.iter().map(lab).collect()
    }
}
