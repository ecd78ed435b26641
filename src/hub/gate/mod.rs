//! Belongs: certificates, the signed plan, the agent on the server, eviction, hand-over.
//! Never: the database.
//! Start here: `plan.rs`.

mod address;
pub mod agent;
mod certificate;
mod key;
mod plan;
mod report;

pub use address::{HubAddress, NoClient, foreign_line, is_readable_on_the_way, loopback_port};
pub use certificate::{Extras, issue};
pub use key::HubKey;
pub use plan::{Epoch, FORMAT, NAMESPACE, Plan, SignedPlan, Slot, Wanted, is_account, public_key};
pub use report::{Accepted, Came, Events, Heartbeat, HeartbeatAnswer, Reason, Report, ReportKind, SlotState};
