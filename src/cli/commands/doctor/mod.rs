//! Belongs: `kubecamp doctor`: what other rooms already know how to look for, as one list.
//! Never: a rule of its own for what a computer or host must be.
//! Start here: `report.rs`.

mod computer;
mod lab;
mod report;

pub(super) use report::doctor;
