use super::Profile;

/// The JSON Schema of a profile, as committed in `profiles/profile.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Profile)
}
