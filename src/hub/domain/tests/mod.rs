//! Belongs: what must hold for any input: clocks, places, quotas, searches, plans.
//! Never: databases.
//! Start here: `clocks.rs`.

mod clocks;
mod places;
mod plans;

use super::*;
use crate::core::Bytes;

fn at(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn window(starts: &str, ends: &str) -> Window {
    Window::new(at(starts), at(ends)).unwrap()
}

fn server(id: &str, mode: Mode, cores: u32, gib: u64) -> Server {
    Server {
        id: id.parse().unwrap(),
        address: "192.0.2.1".into(),
        course: None,
        cores,
        memory: Bytes::gib(gib),
        disk: None,
        labels: [].into(),
        opening: OpeningHours::always(),
        zone: Zone::utc(),
        buffer: 600,
        mode,
        health: Health::Healthy,
        health_note: None,
        occupant: None,
        revision: 0,
        issued: 0,
        acked: 0,
        seen: None,
        clock_offset: 0,
        makes_labs: None,
        version: 1,
    }
}

fn ground(server: Server) -> Ground {
    Ground { server, held: Calendar::default(), closed: vec![] }
}
