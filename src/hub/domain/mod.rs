//! Belongs: slots, states, opening hours, policy, fairness, recurrence, the class plan: values in, values out.
//! Never: I/O, async, SQL.
//! Start here: `state.rs`, then `booking.rs`; `search.rs` finds free slots, `class_plan.rs` fills a week.

mod booking;
mod calendar;
mod capacity;
mod class_plan;
mod fair;
mod grid;
mod ids;
mod opening;
mod people;
mod policy;
mod quota;
mod saved_lab;
mod search;
mod server;
mod slot;
mod state;
#[cfg(test)]
mod tests;
mod time;
mod weekly;
mod zone;

pub use booking::{Booking, NEVER_BEGAN};
pub use calendar::{Calendar, Held};
pub use capacity::{find_place, full_times, holds_all, places};
pub use class_plan::{ClassPlan, ClassRow, Given, Student, Wish, plan_class};
pub use fair::{Waiting, by_fairness};
pub use grid::{Grid, gcd};
pub use ids::{BookingId, CourseId, GroupId, PersonId, SeriesId, ServerId};
pub use opening::OpeningHours;
pub use people::{Course, Group, Person, Role, is_same_key, name_of_key};
pub use policy::Policy;
pub use quota::{ROLLING, Use, most_in_any_week, used_after, used_before};
pub use saved_lab::{Beginning, LAB_GONE, SavedLab};
pub use search::{Ask, Free, Ground, NEAR, alternatives, around, free_slots, nearest};
pub use server::{HANGS, Health, Maintenance, Mode, Server, UNHEARD, WARN_OFFSET, host_and_port};
pub use slot::{PlanSlot, ServerPlan};
pub use state::{State, Who};
pub use time::{Epoch, Window};
pub use weekly::{Occurrence, Weekly};
pub use zone::{Local, Zone, local_time};
