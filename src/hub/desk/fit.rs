use std::collections::BTreeSet;

use super::{rules::Standing, wish::BookRequest};
use crate::{
    core::{Code, Problem},
    hub::{domain::Server, store::Tx},
    profile::Layout,
};

/// The server that a wish names, or all of them, by name.
pub(super) async fn servers(tx: &mut Tx, wish: &BookRequest) -> Result<Vec<Server>, Problem> {
    match &wish.server {
        Some(id) => Ok(vec![tx.server(id).await?]),
        None => tx.servers().await,
    }
}

/// Refuses a lab that no server makes: an agent knows the shipped layouts only, and turns a slot of any other away.
///
/// The hub does not know which servers hand over no labs, or make them by commands of their own. All are booked by
/// these layouts; by them their places are counted too.
pub(super) fn is_made(layout: Layout) -> Result<(), Problem> {
    if layout.is_shipped() {
        return Ok(());
    }
    let labs = Layout::SHIPPED.map(|one| one.to_string()).join(", ");
    Err(Problem::new(Code::BookLayout, format!("no server makes a lab of {layout}"))
        .hint(format!("Choose one of these layouts: {labs}.")))
}

/// Those of the servers that could ever do, as they come, each with the lab that would run there; why none, where none.
pub(super) fn candidates(
    servers: Vec<Server>,
    standing: &Standing,
    wish: &BookRequest,
) -> Result<Vec<(Server, Layout)>, Problem> {
    if let Some(layout) = wish.layout {
        is_made(layout)?;
    }
    if servers.iter().any(|server| lab_on(server, standing, wish).is_some()) {
        return Ok(fitting(servers, standing, wish));
    }
    Err(nothing_fits(&servers, standing, wish))
}

/// As [`candidates`], or none.
pub(super) fn fitting(servers: Vec<Server>, standing: &Standing, wish: &BookRequest) -> Vec<(Server, Layout)> {
    let fit = |server: Server| {
        let layout = lab_on(&server, standing, wish)?;
        Some((server, layout))
    };
    servers.into_iter().filter_map(fit).collect()
}

/// Servers by the lab that would run there.
pub(super) fn by_lab(all: Vec<(Server, Layout)>) -> Vec<(Layout, Vec<Server>)> {
    let mut found: Vec<(Layout, Vec<Server>)> = vec![];
    for (server, layout) in all {
        match found.iter_mut().find(|(of, _)| *of == layout) {
            Some((_, servers)) => servers.push(server),
            None => found.push((layout, vec![server])),
        }
    }
    found
}

/// The lab that would run on a server; none where it could never do.
fn lab_on(server: &Server, standing: &Standing, wish: &BookRequest) -> Option<Layout> {
    let saved = || {
        let here = standing.labs.iter().find(|lab| lab.server == server.id)?;
        (here.layout.is_shipped() && server.can_hold(here.layout)).then_some(here.layout)
    };
    let layout = wish.layout.or_else(saved).or_else(|| server.largest())?;
    let could = layout.is_shipped() && server.can_hold(layout);
    let may = server.is_for(&standing.course.id) && wish.labels.is_subset(&server.labels);
    (could && may).then_some(layout)
}

/// Why none of these servers could ever do: the course, a label, or the lab's size.
fn nothing_fits(servers: &[Server], standing: &Standing, wish: &BookRequest) -> Problem {
    let course = &standing.course.id;
    let here: Vec<&Server> = servers.iter().filter(|server| server.is_for(course)).collect();
    if here.is_empty() {
        let what = match &wish.server {
            Some(server) => format!("server {server} is not for course {course}"),
            None => format!("no server is for course {course}"),
        };
        return Problem::new(Code::HubInvalid, what).hint("kubecamp hub server list shows the servers.");
    }
    if let Some(problem) = no_label(&here, wish) {
        return problem;
    }
    let lab = wish.layout.map_or_else(|| "any lab".to_owned(), |layout| layout.to_string());
    let what = match &wish.server {
        Some(server) => format!("server {server} cannot hold {lab}"),
        None => format!("no server of course {course} can hold {lab}"),
    };
    Problem::new(Code::BookLayout, what)
}

/// Why labels leave no server, when they do: one that nobody has is a slip of the pen, so all that there are are named.
fn no_label(here: &[&Server], wish: &BookRequest) -> Option<Problem> {
    if here.iter().any(|server| wish.labels.is_subset(&server.labels)) {
        return None;
    }
    let known: BTreeSet<&str> = here.iter().flat_map(|server| &server.labels).map(String::as_str).collect();
    let shown = |label: &String| label.chars().take(40).flat_map(char::escape_default).collect::<String>();
    let strange = wish.labels.iter().find(|label| !known.contains(label.as_str()));
    let what = match (strange, &wish.server) {
        (Some(label), Some(server)) => format!("server {server} has no label `{}`", shown(label)),
        (Some(label), None) => format!("no server has the label `{}`", shown(label)),
        (None, _) => "no server has all of these labels".to_owned(),
    };
    let known: Vec<&str> = known.into_iter().collect();
    let there = if wish.server.is_some() { "It has" } else { "There are" };
    let hint = if known.is_empty() { format!("{there} no labels.") } else { format!("{there}: {}.", known.join(", ")) };
    Some(Problem::new(Code::HubInvalid, what).hint(hint))
}
