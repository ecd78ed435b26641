use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    tx::{Row, Tx},
    value::args,
};
use crate::{
    core::{Code, Problem},
    hub::domain::{Epoch, PersonId, Role, ServerId},
};

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// Command line and scripts.
    Api,
    /// A browser.
    Session,
    /// A calendar feed, read only.
    Feed,
    /// The agent of one server.
    Agent,
    /// One sign-in.
    Link,
}

impl TokenKind {
    /// As the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Session => "session",
            Self::Feed => "feed",
            Self::Agent => "agent",
            Self::Link => "link",
        }
    }
}

/// What is known of a token; never its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRow {
    /// Its public id, for revoking.
    pub id: String,
    /// What it is good for.
    pub kind: TokenKind,
    /// Whose it is.
    pub person: Option<PersonId>,
    /// Which server's agent has it.
    pub server: Option<ServerId>,
    /// What its owner calls it.
    pub label: String,
    /// When it was made.
    pub created: Epoch,
    /// When it ends.
    pub expires: Option<Epoch>,
    /// When it was last used.
    pub used: Option<Epoch>,
}

fn token(row: &Row) -> Result<TokenRow, Problem> {
    Ok(TokenRow {
        id: row.text("id")?,
        kind: row.word("kind")?,
        person: row.opt_parse("person")?,
        server: row.opt_parse("server")?,
        label: row.text("label")?,
        created: row.epoch("created")?,
        expires: row.opt_epoch("expires")?,
        used: row.opt_epoch("used")?,
    })
}

impl Tx {
    /// Keeps a token by its hash.
    pub async fn add_token(&mut self, hash: &str, new: &TokenRow) -> Result<(), Problem> {
        let sql = "INSERT INTO tokens (hash, id, kind, person, server, label, created, expires) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let (person, server) =
            (new.person.as_ref().map(ToString::to_string), new.server.as_ref().map(ToString::to_string));
        let values =
            args![hash, new.id.clone(), new.kind.as_str(), person, server, new.label.clone(), new.created, new.expires];
        self.run(sql, values).await?;
        self.note(
            "token.add",
            format!("token:{}", new.id),
            None,
            json!({ "kind": new.kind, "person": new.person, "server": new.server }),
        );
        Ok(())
    }

    /// The token of a hash that is neither revoked nor expired.
    pub async fn token(&mut self, hash: &str) -> Result<Option<TokenRow>, Problem> {
        let sql = "SELECT * FROM tokens WHERE hash = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2)";
        self.one(sql, args![hash, self.now]).await?.as_ref().map(token).transpose()
    }

    /// As [`Self::token`], with what its person may do: none for a closed account, and where there is no person.
    pub async fn token_and_role(&mut self, hash: &str) -> Result<Option<(TokenRow, Option<Role>)>, Problem> {
        let sql = "SELECT t.*, p.role FROM tokens AS t LEFT JOIN people AS p ON p.id = t.person AND p.active = 1 \
                   WHERE t.hash = $1 AND t.revoked IS NULL AND (t.expires IS NULL OR t.expires > $2)";
        let row = self.one(sql, args![hash, self.now]).await?;
        row.map(|row| Ok((token(&row)?, row.opt_word("role")?))).transpose()
    }

    /// Notes the use of a token; whether it is its first.
    ///
    /// Of several at a time one is.
    pub async fn token_used(&mut self, hash: &str) -> Result<bool, Problem> {
        let sql = "UPDATE tokens SET used = $2 WHERE hash = $1 AND used IS NULL";
        if self.run(sql, args![hash, self.now]).await? == 1 {
            return Ok(true);
        }
        self.run("UPDATE tokens SET used = $2 WHERE hash = $1", args![hash, self.now]).await?;
        Ok(false)
    }

    /// Uses up a one-time link: whose it was, if it was good.
    pub async fn take_link(&mut self, hash: &str) -> Result<Option<PersonId>, Problem> {
        let sql = "UPDATE tokens SET used = $2, revoked = $2 WHERE hash = $1 AND kind = 'link' AND revoked IS NULL \
                   AND expires > $2 RETURNING person";
        let row = self.one(sql, args![hash, self.now]).await?;
        row.map_or(Ok(None), |r| r.opt_parse("person"))
    }

    /// Revokes a token of a person by its id; whether there was one.
    ///
    /// `person` none is anybody's.
    pub async fn revoke(&mut self, id: &str, person: Option<&PersonId>) -> Result<bool, Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE id = $1 AND revoked IS NULL \
                   AND (CAST($3 AS TEXT) IS NULL OR person = $3) RETURNING id, kind, person, server";
        let gone = self.all(sql, args![id, self.now, person.map(ToString::to_string)]).await?;
        self.note_revoked(&gone, None)?;
        Ok(!gone.is_empty())
    }

    /// Revokes all tokens of a person, or of one kind of them.
    pub async fn revoke_all(&mut self, person: &PersonId, kind: Option<TokenKind>) -> Result<u64, Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE person = $1 AND revoked IS NULL \
                   AND (CAST($3 AS TEXT) IS NULL OR kind = $3)";
        let action =
            kind.map_or_else(|| "token.revoke-all".to_owned(), |kind| format!("token.revoke-{}", kind.as_str()));
        let kind = kind.map(|k| k.as_str().to_owned());
        let count = self.run(sql, args![person.to_string(), self.now, kind]).await?;
        // Where there was none nothing ended.
        if count > 0 {
            self.note(&action, format!("person:{person}"), None, json!({ "count": count }));
        }
        Ok(count)
    }

    /// Revokes the API tokens of a person, with the reason; the one of hash `but` stays.
    pub async fn revoke_sign_ins(&mut self, person: &PersonId, but: Option<&str>, reason: &str) -> Result<(), Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE person = $1 AND kind = 'api' AND revoked IS NULL \
                   AND (expires IS NULL OR expires > $2) AND (CAST($3 AS TEXT) IS NULL OR hash <> $3) \
                   RETURNING id, kind, person, server";
        let gone = self.all(sql, args![person.to_string(), self.now, but.map(str::to_owned)]).await?;
        self.note_revoked(&gone, Some(reason))
    }

    /// Revokes API tokens of a person, those first that nobody has used for longest, until there are `most`.
    pub async fn keep_api_tokens(&mut self, person: &PersonId, most: i64, reason: &str) -> Result<(), Problem> {
        // SQLite takes no OFFSET without a LIMIT.
        let sql = "UPDATE tokens SET revoked = $2 WHERE hash IN (SELECT hash FROM tokens WHERE person = $1 \
                   AND kind = 'api' AND revoked IS NULL AND (expires IS NULL OR expires > $2) \
                   ORDER BY COALESCE(used, created) DESC, created DESC, hash LIMIT 1000000 OFFSET $3) \
                   RETURNING id, kind, person, server";
        let gone = self.all(sql, args![person.to_string(), self.now, most]).await?;
        self.note_revoked(&gone, Some(reason))
    }

    /// Ends the one-time links of a person that nobody has used.
    pub async fn end_links(&mut self, person: &PersonId, reason: &str) -> Result<(), Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE person = $1 AND kind = 'link' AND revoked IS NULL \
                   AND expires > $2 RETURNING id, kind, person, server";
        let gone = self.all(sql, args![person.to_string(), self.now]).await?;
        self.note_revoked(&gone, Some(reason))
    }

    fn note_revoked(&mut self, gone: &[Row], reason: Option<&str>) -> Result<(), Problem> {
        for row in gone {
            let (id, kind) = (row.text("id")?, row.text("kind")?);
            let (person, server) = (row.opt_text("person")?, row.opt_text("server")?);
            let detail = json!({ "kind": kind, "person": person, "server": server });
            self.note("token.revoke", format!("token:{id}"), reason.map(str::to_owned), detail);
        }
        Ok(())
    }

    /// Revokes the tokens that a server's agent had before the one of this hash.
    pub async fn revoke_agents_before(&mut self, server: &ServerId, hash: &str, made: Epoch) -> Result<u64, Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE server = $1 AND kind = 'agent' AND revoked IS NULL \
                   AND hash <> $3 AND (created < $4 OR used IS NOT NULL)";
        self.run(sql, args![server.to_string(), self.now, hash, made]).await
    }

    /// Revokes the tokens of a server's agent.
    pub async fn revoke_agent(&mut self, server: &ServerId) -> Result<u64, Problem> {
        let sql = "UPDATE tokens SET revoked = $2 WHERE server = $1 AND kind = 'agent' AND revoked IS NULL";
        self.run(sql, args![server.to_string(), self.now]).await
    }

    /// Tokens of a person that are good, newest first.
    pub async fn tokens(&mut self, person: &PersonId) -> Result<Vec<TokenRow>, Problem> {
        let sql = "SELECT * FROM tokens WHERE person = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2) \
                   AND kind <> 'link' ORDER BY created DESC, id";
        self.all(sql, args![person.to_string(), self.now]).await?.iter().map(token).collect()
    }

    /// Keeps a challenge to sign.
    pub async fn add_challenge(&mut self, nonce: &str, person: &PersonId, expires: Epoch) -> Result<(), Problem> {
        self.run("DELETE FROM challenges WHERE expires <= $1", args![self.now]).await?;
        let sql = "INSERT INTO challenges (nonce, person, expires) VALUES ($1, $2, $3)";
        self.run(sql, args![nonce, person.to_string(), expires]).await.map(drop)
    }

    /// Uses up a challenge: for whom it was made, if it is good.
    pub async fn take_challenge(&mut self, nonce: &str) -> Result<Option<PersonId>, Problem> {
        let sql = "DELETE FROM challenges WHERE nonce = $1 RETURNING person, expires";
        let Some(row) = self.one(sql, args![nonce]).await? else { return Ok(None) };
        Ok(if row.epoch("expires")? > self.now { Some(row.parse("person")?) } else { None })
    }

    /// Notes a sign-in that failed.
    pub async fn add_failure(&mut self, who: &str) -> Result<(), Problem> {
        self.run("DELETE FROM failures WHERE moment < $1", args![self.now - 86_400]).await?;
        self.run("INSERT INTO failures (who, moment) VALUES ($1, $2)", args![who, self.now]).await.map(drop)
    }

    /// How many sign-ins failed since a moment.
    pub async fn failures(&mut self, who: &str, since: Epoch) -> Result<i64, Problem> {
        let sql = "SELECT count(*) AS n FROM failures WHERE who = $1 AND moment > $2";
        self.one(sql, args![who, since]).await?.map_or(Ok(0), |r| r.int("n"))
    }

    /// Forgets the failures of a person, wherever they came from.
    pub async fn forget_failures(&mut self, person: &PersonId) -> Result<(), Problem> {
        let sql = "DELETE FROM failures WHERE who = $1 OR who LIKE $2";
        self.run(sql, args![person.to_string(), format!("{person} from %")]).await.map(drop)
    }

    /// Whether an actor's idempotency key is known already.
    pub async fn knows_key(&mut self, actor: &str, key: &str) -> Result<bool, Problem> {
        let sql = "SELECT actor FROM answers WHERE actor = $1 AND key = $2";
        Ok(self.one(sql, args![actor, key]).await?.is_some())
    }

    /// Claims an idempotency key for this transaction, or returns the answer that was given under it.
    ///
    /// A second request with the same key waits here until the first is committed or rolled back. The same key with
    /// another request is refused.
    pub async fn claim_key(&mut self, key: &str, digest: &str) -> Result<Option<String>, Problem> {
        let (actor, now) = (self.actor.clone(), self.now);
        let sql = "INSERT INTO answers (actor, key, digest, moment) VALUES ($1, $2, $3, $4) ON CONFLICT (actor, key) DO NOTHING";
        if self.run(sql, args![actor.as_str(), key, digest, now]).await? == 1 {
            return Ok(None);
        }
        let sql = "SELECT digest, answer FROM answers WHERE actor = $1 AND key = $2";
        let row = self.one(sql, args![actor, key]).await?;
        let row = row.ok_or_else(|| Problem::new(Code::HubBusy, "the same request is under way"))?;
        if row.text("digest")? != digest {
            return Err(Problem::new(Code::HubKeyReused, "the Idempotency-Key was used for another request"));
        }
        row.opt_text("answer")
    }

    /// Keeps the answer under the key that this transaction claimed.
    pub async fn keep_answer(&mut self, key: &str, answer: &str) -> Result<(), Problem> {
        let sql = "UPDATE answers SET answer = $3 WHERE actor = $1 AND key = $2";
        self.run(sql, args![self.actor.clone(), key, answer]).await.map(drop)
    }

    /// Forgets answers from before a moment.
    pub async fn forget_answers(&mut self, before: Epoch) -> Result<u64, Problem> {
        self.run("DELETE FROM answers WHERE moment < $1", args![before]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::Store;

    #[tokio::test]
    async fn of_all_uses_of_a_token_one_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        let row = TokenRow {
            id: "t1".into(),
            kind: TokenKind::Agent,
            person: None,
            server: None,
            label: "agent".into(),
            created: Epoch(1),
            expires: None,
            used: None,
        };
        tx.add_token("a", &row).await.unwrap();
        assert!(!tx.token_used("b").await.unwrap(), "there is none");
        assert!(tx.token_used("a").await.unwrap());
        assert!(!tx.token_used("a").await.unwrap());
    }
}
