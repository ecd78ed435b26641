use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use russh::keys::ssh_key::{PublicKey, SshSig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{Caller, Desk, transaction::transact};
use crate::{
    core::{Code, Problem, Secret},
    hub::{
        domain::{Epoch, Person, PersonId, Role, ServerId},
        store::{TokenKind, TokenRow, Tx},
    },
};

/// The namespace of signatures that sign in; a signature for anything else is not one.
pub const LOGIN_NAMESPACE: &str = "kubecamp-login";

const LINK_LIFE: i64 = 15 * 60;
const CHALLENGE_LIFE: i64 = 5 * 60;
const SESSION_LIFE: i64 = 12 * 3600;
const API_LIFE: i64 = 90 * 86_400;
/// API tokens that one person may have; a program that signs in each time must not fill the database.
const MOST_API: i64 = 50;
/// So many failures as a person from one client lock wrong tries from there out.
const FAILURES: i64 = 5;
/// So many from wherever lock wrong tries out wherever they come from.
const FAILURES_IN_ALL: i64 = 50;
const FAILURE_WINDOW: i64 = 15 * 60;

/// A token as it is handed over, once; only its hash is kept.
#[derive(Debug, Clone)]
pub struct MadeToken {
    /// The text.
    pub text: Secret,
    /// What is known of it.
    pub row: TokenRow,
}

/// Something to sign with one's SSH key: `ssh-keygen -Y sign -n kubecamp-login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Challenge {
    /// What is signed, without a line end.
    pub text: String,
    /// Until when.
    pub expires: Epoch,
}

/// 256 random bits with a prefix that secret scanners find.
pub(super) fn random_text(prefix: &str) -> Secret {
    Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
}

pub(super) fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Ends what a key that somebody has no more may have signed in, but not the token of hash `but`, which asks for it.
///
/// By which key a token was had is not kept, and one makes others: so all of them end.
pub(super) async fn end_of_lost_keys(
    tx: &mut Tx,
    there: &Person,
    next: &Person,
    but: Option<&str>,
) -> Result<(), Problem> {
    if there.keys.iter().all(|key| next.has_key(key)) {
        return Ok(());
    }
    tx.revoke_sign_ins(&there.id, but, "an SSH key was removed").await
}

/// Refuses what is asked for by a token, of hash `by`, that has ended since its request was let in: such a request may take half a
/// minute to be read, and what was to be kept out by the token's end would come back by it.
///
/// Who ends it at this moment changes the row of whose it is: that is to be locked before, as by [`lock_signed_in`], or read
/// and then changed as it was.
pub(super) async fn is_signed_in_still(tx: &mut Tx, by: Option<&str>) -> Result<(), Problem> {
    let Some(by) = by else { return Ok(()) };
    tx.token(by).await?.map(drop).ok_or_else(unknown)
}

/// As [`is_signed_in_still`], with the rows of who asks and of those locked whom it is about; after servers, before groups.
pub(super) async fn lock_signed_in(
    tx: &mut Tx,
    caller: &Caller,
    by: Option<&str>,
    about: &[&PersonId],
) -> Result<(), Problem> {
    // All at once and by login: of two who change each other at the same time none waits for the other in a circle.
    let all: Vec<&PersonId> = about.iter().copied().chain(caller.person()).collect();
    tx.lock_people(&all).await?;
    is_signed_in_still(tx, by).await
}

fn unknown() -> Problem {
    Problem::new(Code::HubSignIn, "this sign-in is not valid")
}

async fn make(
    tx: &mut Tx,
    kind: TokenKind,
    person: Option<&PersonId>,
    server: Option<&ServerId>,
    label: &str,
    life: Option<i64>,
) -> Result<MadeToken, Problem> {
    let text = random_text("kct_");
    let id = format!("t{}", hex::encode(rand::random::<[u8; 8]>()));
    let label: String = label.chars().filter(|c| !c.is_control()).take(100).collect();
    let (created, expires) = (tx.now(), life.map(|l| tx.now() + l));
    let row =
        TokenRow { id, kind, person: person.cloned(), server: server.cloned(), label, created, expires, used: None };
    tx.add_token(&hash(text.expose()), &row).await?;
    Ok(MadeToken { text, row })
}

/// Makes an API token; of too many the one ends that was out of use for longest, since to refuse would keep its owner out. The
/// person is locked: who makes several at once does so one after another, and none goes past the most.
async fn make_api(tx: &mut Tx, person: &PersonId, label: &str) -> Result<MadeToken, Problem> {
    tx.keep_api_tokens(person, MOST_API - 1, "there were too many").await?;
    make(tx, TokenKind::Api, Some(person), None, label, Some(API_LIFE)).await
}

impl Desk {
    /// Who a token is: a person of an API token or session, or a server's agent.
    ///
    /// Feeds and links are none.
    pub async fn caller_of(&self, now: Epoch, token: &Secret) -> Result<Caller, Problem> {
        let hash = hash(token.expose());
        let mut tx = self.store.glance(now).await?;
        let (row, role) = tx.token_and_role(&hash).await?.ok_or_else(unknown)?;
        let caller = match (row.kind, row.person, row.server) {
            (TokenKind::Api | TokenKind::Session, Some(id), _) => {
                Caller::Person { id, role: role.ok_or_else(unknown)? }
            }
            (TokenKind::Agent, _, Some(server)) => Caller::Agent(server),
            _ => return Err(unknown()),
        };
        drop(tx);
        self.note_use(&caller, now, &hash, row.used, row.created).await?;
        Ok(caller)
    }

    /// Notes that a token is used, which was `used` last and `made` then. With its first use an agent begins anew.
    async fn note_use(
        &self,
        caller: &Caller,
        now: Epoch,
        hash: &str,
        used: Option<Epoch>,
        made: Epoch,
    ) -> Result<(), Problem> {
        // Once an hour is enough to see which tokens are used, and keeps reads from waiting for the writer.
        if used.is_some_and(|used| now - used <= 3600) {
            return Ok(());
        }
        match self.write_use(caller, now, hash, made).await {
            // On a full disk people still read: it is only not noted that they did.
            Err(problem) if caller.person().is_some() => {
                tracing::warn!(%problem, "the use of a token is not noted");
                Ok(())
            }
            noted => noted,
        }
    }

    async fn write_use(&self, caller: &Caller, now: Epoch, hash: &str, made: Epoch) -> Result<(), Problem> {
        transact!(self, caller, now, |tx| {
            // By what is on disk now: another request may have been the first since this one looked.
            let first = tx.token_used(hash).await?;
            if let (Caller::Agent(server), true) = (caller, first) {
                tx.revoke_agents_before(server, hash, made).await?;
                tx.agent_anew(server).await?;
            }
            Ok(())
        })
    }

    /// Whose calendar feed a token is.
    pub async fn feed_of(&self, now: Epoch, token: &Secret) -> Result<PersonId, Problem> {
        let hash = hash(token.expose());
        let row = self.store.glance(now).await?.token(&hash).await?.ok_or_else(unknown)?;
        let id = row.person.filter(|_| row.kind == TokenKind::Feed).ok_or_else(unknown)?;
        // Whoever reads a feed may do nothing else by it, whatever its owner may.
        let caller = Caller::Person { id: id.clone(), role: Role::Student };
        self.note_use(&caller, now, &hash, row.used, row.created).await?;
        Ok(id)
    }

    /// Makes a token for scripts (90 days, of 50 the one ends that was used least lately) or a calendar feed (until
    /// revoked; the last one ends).
    ///
    /// For oneself only.
    pub async fn make_token(
        &self,
        caller: &Caller,
        now: Epoch,
        kind: TokenKind,
        label: &str,
    ) -> Result<MadeToken, Problem> {
        self.write_token(caller, now, kind, label, None).await
    }

    /// As [`Self::make_token`], by somebody who is signed in with `token`; none is made by one that has ended.
    pub async fn make_token_with(
        &self,
        caller: &Caller,
        now: Epoch,
        kind: TokenKind,
        label: &str,
        token: &Secret,
    ) -> Result<MadeToken, Problem> {
        self.write_token(caller, now, kind, label, Some(token)).await
    }

    async fn write_token(
        &self,
        caller: &Caller,
        now: Epoch,
        kind: TokenKind,
        label: &str,
        token: Option<&Secret>,
    ) -> Result<MadeToken, Problem> {
        let person = caller.person().ok_or_else(|| Problem::new(Code::HubDenied, "only people have tokens"))?;
        let by = token.map(|token| hash(token.expose()));
        transact!(self, caller, now, |tx| {
            // Whoever takes a key away at this moment waits, and ends what is made here; or has ended `by` too.
            lock_signed_in(&mut tx, caller, by.as_deref(), &[]).await?;
            match kind {
                TokenKind::Api => make_api(&mut tx, person, label).await,
                TokenKind::Feed => {
                    tx.revoke_all(person, Some(kind)).await?;
                    make(&mut tx, kind, Some(person), None, label, None).await
                }
                _ => Err(Problem::new(Code::HubDenied, "such a token is made by signing in")),
            }
        })
    }

    /// Makes the token of a server's agent.
    ///
    /// The one before ends when this one is first used: an agent that is at work is not cut off by an enrolment that does
    /// not come to its end.
    pub async fn make_agent_token(&self, caller: &Caller, now: Epoch, server: &ServerId) -> Result<MadeToken, Problem> {
        caller.needs_admin()?;
        transact!(self, caller, now, |tx| {
            tx.server(server).await?;
            make(&mut tx, TokenKind::Agent, None, Some(server), "agent", None).await
        })
    }

    /// The tokens of a person.
    pub async fn tokens(&self, caller: &Caller, now: Epoch, person: &PersonId) -> Result<Vec<TokenRow>, Problem> {
        caller.needs_self(person)?;
        self.store.read(now).await?.tokens(person).await
    }

    /// Revokes a token by its id: one's own, or anybody's for an admin.
    pub async fn revoke(&self, caller: &Caller, now: Epoch, id: &str) -> Result<(), Problem> {
        let whose = if caller.is_admin() { None } else { Some(caller.person().ok_or_else(unknown)?) };
        let gone = transact!(self, caller, now, |tx| tx.revoke(id, whose).await)?;
        let none =
            || Problem::new(Code::HubUnknown, "there is no such token").hint("kubecamp hub token ls names yours.");
        if gone { Ok(()) } else { Err(none()) }
    }

    /// Ends the session or token that is used right now.
    pub async fn sign_out(&self, caller: &Caller, now: Epoch, token: &Secret) -> Result<(), Problem> {
        let row = self.store.glance(now).await?.token(&hash(token.expose())).await?;
        let Some(row) = row else { return Ok(()) };
        transact!(self, caller, now, |tx| tx.revoke(&row.id, row.person.as_ref()).await).map(drop)
    }

    /// Makes a one-time link for somebody, good for 15 minutes; a teacher's for students, an admin's for all.
    ///
    /// Those made before end, since a new one is asked for where the last went astray.
    pub async fn make_link(&self, caller: &Caller, now: Epoch, person: &PersonId) -> Result<MadeToken, Problem> {
        self.write_link(caller, now, person, None).await
    }

    /// As [`Self::make_link`], by somebody who is signed in with `token`; none is made by one that has ended.
    pub async fn make_link_with(
        &self,
        caller: &Caller,
        now: Epoch,
        person: &PersonId,
        token: &Secret,
    ) -> Result<MadeToken, Problem> {
        self.write_link(caller, now, person, Some(token)).await
    }

    async fn write_link(
        &self,
        caller: &Caller,
        now: Epoch,
        person: &PersonId,
        token: Option<&Secret>,
    ) -> Result<MadeToken, Problem> {
        caller.needs_teacher()?;
        let by = token.map(|token| hash(token.expose()));
        transact!(self, caller, now, |tx| {
            // Of two that are made at once one is the last.
            lock_signed_in(&mut tx, caller, by.as_deref(), &[person]).await?;
            let whose = tx.person(person).await?;
            if whose.role != Role::Student {
                caller.needs_admin()?;
            }
            tx.forget_failures(person).await?;
            tx.end_links(person, "a newer link was made").await?;
            make(&mut tx, TokenKind::Link, Some(person), None, "sign-in link", Some(LINK_LIFE)).await
        })
    }

    /// Uses up a one-time link for a session of 12 hours, which its owner knows by the label later.
    pub async fn use_link(&self, now: Epoch, link: &Secret, label: &str) -> Result<MadeToken, Problem> {
        transact!(self, Caller::Clerk, now, |tx| {
            let person = tx.take_link(&hash(link.expose())).await?.ok_or_else(unknown)?;
            if !tx.person(&person).await?.active {
                return Err(unknown());
            }
            make(&mut tx, TokenKind::Session, Some(&person), None, label, Some(SESSION_LIFE)).await
        })
    }

    /// Something to sign for somebody who says to be `person`.
    ///
    /// It does not tell whether there is such a person.
    ///
    /// It names the hub's public address `hub`, where it has one: who signs sees for whom, and a false hub that hands on
    /// the challenge of a true one is found out.
    pub async fn challenge(&self, now: Epoch, person: &PersonId, hub: Option<&str>) -> Result<Challenge, Problem> {
        let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let text = match hub {
            Some(hub) => format!("kubecamp-login {person} {nonce} {hub}"),
            None => format!("kubecamp-login {person} {nonce}"),
        };
        let expires = now + CHALLENGE_LIFE;
        transact!(self, Caller::Clerk, now, |tx| tx.add_challenge(&text, person, expires).await)?;
        Ok(Challenge { text, expires })
    }

    /// Trades a signed challenge for an API token.
    ///
    /// After five failures in 15 minutes from one client, or fifty from all, whatever is wrong is refused as locked, and
    /// counted no more.
    ///
    /// Who has the key gets in all the same. Nobody guesses a signature, so a lock protects nothing from it; and in a class
    /// behind one address it would let everybody keep everybody else out.
    pub async fn answer(
        &self,
        now: Epoch,
        challenge: &str,
        signature: &str,
        label: &str,
        client: &str,
    ) -> Result<MadeToken, Problem> {
        let signature = SshSig::from_pem(signature).ok();
        transact!(self, Caller::Clerk, now, |tx| {
            let Some(person) = tx.take_challenge(challenge).await? else { return Ok(Err(unknown())) };
            // Whoever takes the key away at this moment waits, and ends this token too.
            tx.lock_person(&person).await?;
            let known = tx.find_person(&person).await?.filter(|p| p.active);
            let keys = known.map(|p| p.keys).unwrap_or_default();
            let good = signature.as_ref().is_some_and(|s| keys.iter().any(|key| signed(key, challenge, s)));
            if !good {
                // Committed, not rolled back: a failure that is forgotten would not lock anybody out.
                return failed(&mut tx, &person, client).await.map(Err);
            }
            tx.forget_failures(&person).await?;
            make_api(&mut tx, &person, label).await.map(Ok)
        })?
    }
}

/// Counts a failure, and how it is told.
async fn failed(tx: &mut Tx, person: &PersonId, client: &str) -> Result<Problem, Problem> {
    let (here, since) = (format!("{person} from {client}"), tx.now() - FAILURE_WINDOW);
    let locked =
        tx.failures(&here, since).await? >= FAILURES || tx.failures(person.as_str(), since).await? >= FAILURES_IN_ALL;
    if locked {
        return Ok(Problem::new(Code::HubLocked, format!("signing in as {person} failed too often"))
            .hint("Sign in with a key that the hub has of you, or ask a teacher for a one-time link.")
            .hint("Other tries are looked at again after 15 minutes."));
    }
    tx.add_failure(person.as_str()).await?;
    tx.add_failure(&here).await?;
    Ok(unknown())
}

fn signed(key: &str, challenge: &str, signature: &SshSig) -> bool {
    PublicKey::from_openssh(key).is_ok_and(|key| key.verify(LOGIN_NAMESPACE, challenge.as_bytes(), signature).is_ok())
}
