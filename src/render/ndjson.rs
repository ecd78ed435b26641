use std::io::Write;

use crate::core::Event;

/// Writes one event as one line of JSON; a reader that went away is no reason to stop the run.
pub fn ndjson(to: &mut dyn Write, event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = to.write_all(&line).and_then(|()| to.flush());
    }
}
