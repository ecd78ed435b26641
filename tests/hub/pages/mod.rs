//! The pages as browsers without scripts use them: forms, refusals, and requests that no honest browser sends.

mod form;
pub mod odd_form;
mod slot;
mod teacher;
