use super::Profile;

/// The JSON Schema of a profile, as committed in `profiles/profile.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::bless::{assert_fresh, keys_page};

    #[test]
    fn committed_schema_and_reference_are_fresh() {
        let json = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        assert_fresh("profiles/profile.schema.json", &json, "profile::schema");
        let page = keys_page("Keys of a profile", "src/profile/model.rs", "profiles", &schema());
        assert_fresh("docs/reference/profile.md", &page, "profile::schema");
    }
}
