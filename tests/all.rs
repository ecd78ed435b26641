//! One binary: links once, so the loop stays short.

mod live_bundle;
