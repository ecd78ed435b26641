use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reason;
use crate::{
    core::Problem,
    hub::domain::{CourseId, PersonId, ServerId, Window},
    profile::Layout,
};

/// A wish for a slot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BookRequest {
    /// For whom; none is oneself. Only a teacher may name another.
    #[serde(default)]
    pub person: Option<PersonId>,
    /// In which course; needed only by somebody who is in several.
    #[serde(default)]
    pub course: Option<CourseId>,
    /// On which server; none is any that fits.
    #[serde(default)]
    pub server: Option<ServerId>,
    /// Labels that the server must have.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// The lab, of a shipped layout; none is the one that is saved on the server, else the one with the most nodes that it
    /// holds.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2x4c8g")]
    pub layout: Option<Layout>,
    /// When.
    pub window: Window,
    /// A teacher's reason to go past quota, notice and opening hours, 1 to 500 characters.
    #[serde(default)]
    pub reason: Option<String>,
}

impl BookRequest {
    /// It with its reason as it is kept; nearly every wish has none and is not copied.
    pub(super) fn stated(&self) -> Result<Cow<'_, Self>, Problem> {
        if self.reason.is_none() {
            return Ok(Cow::Borrowed(self));
        }
        let reason = reason::if_stated(self.reason.as_deref())?;
        Ok(Cow::Owned(Self { reason, ..self.clone() }))
    }
}
