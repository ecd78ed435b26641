use super::Profile;

/// The JSON Schema of a profile, as committed in `profiles/profile.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Profile)
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_committed_schema_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/profile.schema.json");
        let fresh = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if env::var_os("KUBECAMP_BLESS").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == fresh,
            "profiles/profile.schema.json is stale; write it anew with: KUBECAMP_BLESS=1 cargo test --lib profile::schema"
        );
    }
}
