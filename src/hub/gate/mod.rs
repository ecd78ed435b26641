//! Belongs: certificates, the signed plan, the agent on the server, eviction, hand-over.
//! Never: the database.
//! Start here: `plan.rs`.
