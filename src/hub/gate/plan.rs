use std::collections::BTreeSet;

use russh::keys::{
    Algorithm, HashAlg, PublicKey,
    ssh_key::{LineEnding, SshSig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::HubKey;
use crate::core::{Code, Problem};

/// Seconds since 1970.
pub type Epoch = i64;

/// What plans are signed for: a signature for anything else is none for a plan.
pub const NAMESPACE: &str = "kubecamp-plan";

/// The version of the plan's format that this agent reads.
pub const FORMAT: u32 = 1;

/// The longest text that can be a plan; five people have a few kilobytes.
const LONGEST: usize = 4 << 20;

/// The last second of the year 9999: what is counted from a moment of a plan stays far from overflow.
const LATEST: Epoch = 253_402_300_799;

/// What one server is to do for the next days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// [`FORMAT`]; a newer one is refused.
    pub format: u32,
    /// The server's name at the hub.
    pub server: String,
    /// Grows with each change; an older one is refused.
    pub revision: u64,
    /// When the hub signed it.
    #[schema(value_type = i64)]
    pub issued_at: Epoch,
    /// From then on it opens nothing, and what is open is closed.
    #[schema(value_type = i64)]
    pub expires_at: Epoch,
    /// The slots of this server.
    pub slots: Vec<Slot>,
    /// Quarantined bookings whose server an admin has looked after: the agent cleans and proves it once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cleared: Vec<String>,
    /// Accounts whose holders have a booking here that is none of these slots yet: it is too far ahead, or the server is out
    /// of use. Their labs are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<String>,
}

/// One booking as the server's agent needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slot {
    /// The booking's id at the hub: 1 to 40 letters, digits and hyphens.
    pub booking: String,
    /// The person's name, for messages.
    pub person: String,
    /// The person's Unix account on this server; never shared between two people.
    pub account: String,
    /// Which of the server's places it holds, from 0; an exclusive server has one.
    #[serde(default)]
    pub place: u32,
    /// First second.
    #[schema(value_type = i64)]
    pub starts: Epoch,
    /// First second after it.
    #[schema(value_type = i64)]
    pub ends: Epoch,
    /// Until then the place is kept free for saving and reset.
    #[schema(value_type = i64)]
    pub busy_until: Epoch,
    /// The layout of the lab, as `2x4c8g`; none is only the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// Whether the slot is to take place.
    pub wanted: Wanted,
    /// The only principal that opens it: `slot-`, the booking's id, `-` and the account.
    pub principal: String,
    /// The person's first public key, one OpenSSH line, let into the lab's machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Their other public keys, let in as well; an agent that is older than these reads the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_keys: Vec<String>,
    /// Why it is ended, where somebody else than its holder did so: their terminals are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the hub wants of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It takes place.
    Open,
    /// It was cancelled; open or not, it ends now.
    Cancelled,
    /// Its holder gave it back.
    Released,
    /// Its holder did not come.
    NoShow,
    /// A teacher ended it.
    Overridden,
}

/// A plan as it travels and as it lies on the disk: the signed text itself, never written anew from its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedPlan {
    /// The plan's JSON, byte by byte as it was signed.
    pub plan: String,
    /// An SSH signature of it, in PEM, namespace [`NAMESPACE`].
    pub signature: String,
}

impl Slot {
    /// A slot that is to take place, with the principal of its booking and account.
    pub fn new(booking: &str, account: &str, starts: Epoch, ends: Epoch) -> Self {
        Self {
            booking: booking.to_owned(),
            person: account.to_owned(),
            account: account.to_owned(),
            place: 0,
            starts,
            ends,
            busy_until: ends,
            layout: None,
            wanted: Wanted::Open,
            principal: principal_of(booking, account),
            key: None,
            more_keys: vec![],
            why: None,
        }
    }

    /// All of the person's public keys, the first of them first.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.key.iter().chain(&self.more_keys).map(String::as_str)
    }

    /// Whether another version of this slot says the same of its door and lab: a name and keys are their person's own and may
    /// change, and why it ended is only told.
    pub fn is_as(&self, other: &Self) -> bool {
        let bare =
            |slot: &Self| Self { person: String::new(), key: None, more_keys: vec![], why: None, ..slot.clone() };
        bare(self) == bare(other)
    }

    fn wrong(&self) -> Option<&'static str> {
        let id = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        if self.booking.is_empty() || self.booking.len() > 40 || !self.booking.bytes().all(id) {
            Some("its id is none")
        } else if self.principal != principal_of(&self.booking, &self.account) {
            Some("its principal is not that of its booking and account")
        } else if !is_account(&self.account) {
            Some("its account cannot be one of a student")
        } else if self.starts < 0 || self.ends <= self.starts || self.busy_until < self.ends {
            Some("its times are in the wrong order")
        } else if self.busy_until > LATEST {
            Some("its times are too far ahead")
        } else {
            None
        }
    }
}

/// What a certificate and an account's principals file have in common. The account stands in it: a booking that is given
/// away keeps its id, and the certificate of who had it must not let them in as whom they gave it to.
fn principal_of(booking: &str, account: &str) -> String {
    format!("slot-{booking}-{account}")
}

/// Whether this can be the account of a student: a plain name that is not root's, nor with a path or option in it.
pub fn is_account(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    name.len() <= 32
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(inner)
        && name != "root"
}

/// Reads one OpenSSH public key line, of a kind that sshd takes today.
pub fn public_key(line: &str) -> Result<PublicKey, Problem> {
    let bad = || Problem::new(Code::GateKey, "this is not an OpenSSH public key");
    if line.trim().lines().count() != 1 {
        return Err(bad());
    }
    let key = PublicKey::from_openssh(line.trim()).map_err(|_| bad())?;
    match key.algorithm() {
        Algorithm::Dsa => {
            Err(bad().detail(["DSA keys are no longer accepted"]).hint("Make a key: ssh-keygen -t ed25519."))
        }
        _ => Ok(key),
    }
}

impl Plan {
    /// An empty plan.
    pub fn new(server: &str, revision: u64, issued_at: Epoch, expires_at: Epoch) -> Self {
        Self {
            format: FORMAT,
            server: server.to_owned(),
            revision,
            issued_at,
            expires_at,
            slots: vec![],
            cleared: vec![],
            later: vec![],
        }
    }

    /// The slot of a booking.
    pub fn slot(&self, booking: &str) -> Option<&Slot> {
        self.slots.iter().find(|s| s.booking == booking)
    }

    /// Signs it.
    pub fn sign(&self, key: &HubKey) -> Result<SignedPlan, Problem> {
        self.check()?;
        let fail = || Problem::new(Code::Internal, "signing a plan");
        let plan = serde_json::to_string(self).map_err(|e| fail().because(e))?;
        if plan.len() > LONGEST {
            let what = format!(
                "the plan of server {} is too long to be signed: it has {} bytes, and agents read {LONGEST}",
                self.server,
                plan.len()
            );
            return Err(Problem::new(Code::GatePlan, what).hint(
                "Fewer or shorter public keys of those who have a slot there within three days make it shorter, and so do \
                 fewer slots. Until then its agent goes on with the plan that it has.",
            ));
        }
        let signature = key
            .private()
            .sign(NAMESPACE, HashAlg::Sha512, plan.as_bytes())
            .and_then(|s| s.to_pem(LineEnding::LF))
            .map_err(|e| fail().because(e))?;
        Ok(SignedPlan { plan, signature })
    }

    /// Whether its parts fit together; what the agent would refuse the hub does not sign.
    fn check(&self) -> Result<(), Problem> {
        if self.format != FORMAT {
            return Err(refused(format!("it has format {}, this agent reads {FORMAT}", self.format)));
        }
        if self.expires_at <= self.issued_at {
            return Err(refused("it expires before it begins".into()));
        }
        if self.issued_at < 0 || self.expires_at > LATEST {
            return Err(refused("its times are no moments".into()));
        }
        let mut seen = BTreeSet::new();
        for slot in &self.slots {
            if let Some(wrong) = slot.wrong() {
                return Err(refused(format!("slot {:?}: {wrong}", slot.booking)));
            }
            if !seen.insert(&slot.booking) {
                return Err(refused(format!("slot {} is in it twice", slot.booking)));
            }
        }
        let mut open: Vec<_> = self.slots.iter().filter(|s| s.wanted == Wanted::Open).collect();
        open.sort_by_key(|s| s.starts);
        for (i, a) in open.iter().enumerate() {
            let clash = open[i + 1..].iter().take_while(|b| b.starts < a.ends);
            if let Some(b) = clash.into_iter().find(|b| b.place == a.place || b.account == a.account) {
                return Err(refused(format!("slots {} and {} overlap", a.booking, b.booking)));
            }
        }
        Ok(())
    }
}

impl SignedPlan {
    /// The plan, if `trusted` signed it for this server and it is sound.
    pub fn open(&self, trusted: &PublicKey, server: &str) -> Result<Plan, Problem> {
        if self.plan.len() > LONGEST {
            return Err(refused("it is too long".into()));
        }
        let signature =
            SshSig::from_pem(&self.signature).map_err(|e| refused("it has no signature".into()).because(e))?;
        // An agent's log shows no hints.
        let foreign = "its signature is not the hub's; if that has new keys, enroll this server again";
        trusted.verify(NAMESPACE, self.plan.as_bytes(), &signature).map_err(|e| refused(foreign.into()).because(e))?;
        let plan: Plan =
            serde_json::from_str(&self.plan).map_err(|e| refused("it cannot be read".into()).because(e))?;
        if plan.server != server {
            return Err(refused(format!("it is for the server {:?}, and this is {server}", plan.server)));
        }
        plan.check()?;
        Ok(plan)
    }
}

pub(super) fn refused(why: String) -> Problem {
    Problem::new(Code::GatePlan, "the hub's plan was refused").detail([why])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HubKey {
        HubKey::generate("plan").unwrap()
    }

    fn plan() -> Plan {
        let mut plan = Plan::new("s1", 3, 1000, 2000);
        plan.slots = vec![Slot::new("a", "kct-a", 1000, 1100), Slot::new("b", "kct-b", 1100, 1200)];
        plan
    }

    #[test]
    fn a_signed_plan_comes_back() {
        let key = key();
        let signed = plan().sign(&key).unwrap();
        assert_eq!(signed.open(key.public(), "s1").unwrap(), plan());
        let again: SignedPlan = serde_json::from_str(&serde_json::to_string(&signed).unwrap()).unwrap();
        assert_eq!(again.open(key.public(), "s1").unwrap(), plan());
    }

    #[test]
    fn nothing_else_is_taken() {
        let (ours, other) = (key(), key());
        let good = plan().sign(&ours).unwrap();
        let code = |signed: &SignedPlan, server: &str| signed.open(ours.public(), server).unwrap_err().code;
        assert_eq!(code(&plan().sign(&other).unwrap(), "s1"), Code::GatePlan);
        assert_eq!(code(&good, "s2"), Code::GatePlan);
        let altered = SignedPlan { plan: good.plan.replace("kct-a", "kct-c"), ..good.clone() };
        assert_eq!(code(&altered, "s1"), Code::GatePlan);
        let bare = SignedPlan { signature: String::new(), ..good.clone() };
        assert_eq!(code(&bare, "s1"), Code::GatePlan);
        // The same key, the same words, for another purpose.
        let signature = ours.private().sign("kubecamp-login", HashAlg::Sha512, good.plan.as_bytes()).unwrap();
        let signature = signature.to_pem(LineEnding::LF).unwrap();
        assert_eq!(code(&SignedPlan { signature, ..good }, "s1"), Code::GatePlan);
    }

    #[test]
    fn unsound_plans_are_not_signed() {
        let spoil = |f: &dyn Fn(&mut Plan)| {
            let mut plan = plan();
            f(&mut plan);
            plan.sign(&key()).err().map(|p| p.code)
        };
        let refused = Some(Code::GatePlan);
        assert_eq!(spoil(&|_| {}), None);
        for account in ["root", "", "A", "../x", "-x", "a b", "a\nb", "0a"] {
            let with = |p: &mut Plan| p.slots[0] = Slot::new("a", account, 1000, 1100);
            assert_eq!(spoil(&with), refused, "{account}");
        }
        assert_eq!(spoil(&|p| p.slots[0].booking = "a\" x".into()), refused);
        for principal in ["slot-b-kct-a", "slot-a-kct-b", "slot-a", ""] {
            assert_eq!(spoil(&|p| p.slots[0].principal = principal.into()), refused, "{principal}");
        }
        assert_eq!(spoil(&|p| p.slots[0].ends = 1000), refused);
        assert_eq!(spoil(&|p| p.slots[1].starts = 1099), refused);
        assert_eq!(spoil(&|p| (p.slots[1].starts, p.slots[1].place) = (1099, 1)), None);
        assert_eq!(spoil(&|p| (p.slots[1].starts, p.slots[1].wanted) = (1099, Wanted::Cancelled)), None);
        assert_eq!(spoil(&|p| p.slots[1].booking = "a".into()), refused);
        assert_eq!(spoil(&|p| p.format = 2), refused);
        assert_eq!(spoil(&|p| p.expires_at = 1000), refused);
        assert_eq!(spoil(&|p| p.expires_at = Epoch::MAX), refused);
        assert_eq!(spoil(&|p| p.issued_at = Epoch::MIN), refused);
        assert_eq!(spoil(&|p| p.slots[1].busy_until = Epoch::MAX), refused);
    }

    #[test]
    fn a_plan_that_no_agent_would_read_is_not_signed() {
        let mut plan = plan();
        plan.slots[0].key = Some("k".repeat(LONGEST / 2));
        let signed = plan.sign(&key()).unwrap();
        assert!(signed.plan.len() <= LONGEST);
        plan.slots[1].key = plan.slots[0].key.clone();
        let long = plan.sign(&key()).unwrap_err();
        assert!(long.code == Code::GatePlan && long.what.contains("server s1 is too long"), "{long}");
        assert!(long.all_hints()[0].contains("public keys"), "{long}");
    }
}
