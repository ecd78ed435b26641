use std::io::{self, Write};

use crate::core::Event;

/// Writes one event as one line of JSON; one that cannot be written is no reason to stop the run.
pub fn ndjson(to: &mut dyn Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
