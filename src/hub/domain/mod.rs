//! Belongs: slots, states, opening hours, policy, fairness, recurrence, the class plan: values in, values out.
//! Never: I/O, async, SQL.
//! Start here: `state.rs`.
