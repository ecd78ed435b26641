//! Belongs: running any flow: steps, lanes, waiting for each other, journal, locks, cancel.
//! Never: kubeadm, printing, what a step is for.
//! Start here: `Step` in `step.rs`, then `Phase` in `phase.rs`, then `lane.rs`.

mod board;
mod crew;
mod given;
mod host_lock;
mod journal;
mod lane;
mod lock;
mod phase;
mod run;
mod step;

pub use board::Board;
pub use crew::Crew;
pub use host_lock::HostLock;
pub use journal::{Journal, UnderWay, parse_journal, read_journal};
pub use lock::{Holder, Lock};
pub use phase::{Phase, View};
pub use run::{Mode, Planned, Run, Summary, run_flow};
pub use step::{Change, Check, Need, Step, Task, Upload, Value};
