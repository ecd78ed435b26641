use crate::{
    cli::{
        clock::{local, own_zone, zoned},
        output::{self, Format},
    },
    core::{Problem, shell::printable},
    hub::domain::{Booking, ClassPlan, Epoch, Free, State},
    render::table,
};

/// Where a column is of moments it says by which clock, once.
fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| if *n == "STARTS" { zoned(n) } else { (*n).to_owned() }).collect()
}

fn dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

pub(super) fn bookings(format: Format, all: &[Booking]) -> Result<(), Problem> {
    let wide = format == Format::Wide;
    output::value(format, &all, |_| {
        let mut rows = vec![heading(&["ID", "STATE", "STARTS", "ENDS", "SERVER", "LAYOUT", "PERSON"])];
        if wide {
            rows[0].extend(heading(&["COURSE", "GROUP", "PLACE", "SERIES", "VERSION", "NOTE"]));
        }
        for b in all {
            let mut row = vec![
                b.id.to_string(),
                b.state.to_string(),
                local(b.window.starts),
                local(b.window.ends),
                dash(b.server.as_ref()),
                b.layout.to_string(),
                b.person.to_string(),
            ];
            if wide {
                let note = printable(b.note.as_deref().unwrap_or("-"));
                let more = [
                    b.course.to_string(),
                    dash(b.group.as_ref()),
                    dash(b.place.as_ref()),
                    dash(b.series.as_ref()),
                    b.version.to_string(),
                    note.to_string(),
                ];
                row.extend(more);
            }
            rows.push(row);
        }
        table(&rows)
    })
}

/// Says on stderr which bookings their servers do not take, and what shows more.
pub(super) fn troubles(all: &[Booking]) {
    let ahead = |b: &&Booking| matches!(b.state, State::Booked | State::Delayed);
    for b in all.iter().filter(ahead).filter(|b| b.refused.is_some() || b.stranded.is_some()) {
        let why = b.refused.as_deref().unwrap_or("it is out of use or in maintenance, and no other is free");
        let why = printable(&own_zone().told(why));
        output::say(&format!("{}: its server does not take it: {why}. See: kubecamp book move {}", b.id, b.id));
    }
}

pub(super) fn frees(format: Format, all: &[Free]) -> Result<(), Problem> {
    // Who has no saved lab has nothing to choose by.
    let labs = all.iter().any(|f| f.lab.is_some());
    output::value(format, &all, |_| {
        let mut rows = vec![heading(&["STARTS", "ENDS", "SERVER"])];
        rows.extend(all.iter().map(|f| vec![local(f.window.starts), local(f.window.ends), f.server.to_string()]));
        if labs {
            let column = std::iter::once("LAB".to_owned()).chain(all.iter().map(|f| dash(f.lab.as_ref())));
            rows.iter_mut().zip(column).for_each(|(row, lab)| row.push(lab));
        }
        table(&rows)
    })
}

pub(super) fn plan_text(format: Format, plan: &ClassPlan) -> Result<(), Problem> {
    output::value(format, plan, |_| {
        let mut rows = vec![heading(&["ROUND", "PERSON", "STARTS", "ENDS", "SERVER", "WHY"])];
        for row in &plan.rows {
            let time = |pick: fn(&crate::hub::domain::Given) -> Epoch| row.given.as_ref().map(|g| local(pick(g)));
            rows.push(vec![
                row.round.to_string(),
                row.person.to_string(),
                dash(time(|g| g.window.starts).as_ref()),
                dash(time(|g| g.window.ends).as_ref()),
                dash(row.given.as_ref().map(|g| &g.server)),
                row.why.clone(),
            ]);
        }
        table(&rows)
    })
}
