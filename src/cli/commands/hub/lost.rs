use super::super::Context;
use crate::{
    cli::{ask::confirm, clock::own_zone, hub_client::HubClient},
    core::{Problem, shell::printable},
    hub::domain::{Booking, Group, GroupId, PersonId, State},
    render::count,
};

/// So many bookings are named one by one.
const NAMED: usize = 20;

/// Asks before a group goes that has members.
pub(super) async fn confirm_group(cx: &Context, client: &HubClient, group: &GroupId) -> Result<(), Problem> {
    let all: Vec<Group> = client.get("/api/v1/groups").await?;
    match all.iter().find(|g| g.id == *group).and_then(of_group) {
        Some(question) => confirm(cx.global.yes, &question).await,
        None => Ok(()),
    }
}

/// The question before a group goes; none where nobody is in it.
fn of_group(group: &Group) -> Option<String> {
    let members: Vec<String> = group.members.iter().map(ToString::to_string).collect();
    let (many, who) = (count(members.len() as u64, "member"), members.join(", "));
    let lose = format!("and can book nothing more in course {} until they are in another of its groups", group.course);
    (!members.is_empty()).then(|| format!("Group {} has {many}: {who}. They lose it, {lose}.\nRemove it?", group.id))
}

/// Asks before an account is closed that has something booked; gives what is given up with it, as lines.
pub(super) async fn confirm_account(
    cx: &Context,
    client: &HubClient,
    login: &PersonId,
) -> Result<Vec<String>, Problem> {
    let params = [("person", Some(login.to_string())), ("open", Some("true".to_owned()))];
    let lost = given_up(&client.find::<Vec<Booking>>("/api/v1/bookings", &params).await?);
    if !lost.is_empty() {
        let all = lost.join("\n  ");
        let question =
            format!("With the account of {login} all is given up that it has booked or waits for:\n  {all}\nClose it?");
        confirm(cx.global.yes, &question).await?;
    }
    Ok(lost)
}

/// What of some bookings ends with their holder's account, a line each; of very many only how many more.
fn given_up(all: &[Booking]) -> Vec<String> {
    let ends = |b: &&Booking| b.state == State::Waitlisted || b.state.is_ahead() || b.state.is_usable();
    let lost: Vec<&Booking> = all.iter().filter(ends).collect();
    let line = |b: &&Booking| {
        let on = b.server.as_ref().map(|server| format!(" on {server}")).unwrap_or_default();
        printable(&own_zone().told(&format!("{}: {} {}{on}", b.id, b.state, b.window)))
    };
    let mut lines: Vec<String> = lost.iter().take(NAMED).map(line).collect();
    if lost.len() > NAMED {
        lines.push(format!("and {} more", lost.len() - NAMED));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_loses_a_group_is_named() {
        let group = |members: &[&str]| -> Group {
            serde_json::from_value(json!({ "id": "blue", "course": "k8s", "members": members })).unwrap()
        };
        assert_eq!(of_group(&group(&[])), None);
        let question = of_group(&group(&["amy", "bob"])).unwrap();
        assert!(question.starts_with("Group blue has 2 members: amy, bob. They lose it"), "{question}");
    }

    #[test]
    fn only_what_is_not_over_is_given_up() {
        let booking = |id: &str, state: State| -> Booking {
            serde_json::from_value(json!({
                "id": id, "server": "one", "person": "amy", "course": "k8s", "layout": "2x4c8g",
                "window": { "starts": 1000, "ends": 2000 }, "busy_until": 2000, "state": state, "since": 0,
                "version": 1, "created": 0, "updated": 0, "charged": 1000, "lapses": 0,
            }))
            .unwrap()
        };
        let all = [("b1", State::Booked), ("b2", State::Saving), ("b3", State::Waitlisted), ("b4", State::Active)]
            .map(|(id, state)| booking(id, state));
        let lines = given_up(&all);
        let ids: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        assert_eq!(ids, ["b1", "b3", "b4"]);
        assert!(lines[0].starts_with("b1: booked ") && lines[0].ends_with(" on one"), "{lines:?}");
        let many: Vec<Booking> = (0..22).map(|n| booking(&format!("b{n}"), State::Booked)).collect();
        assert_eq!((given_up(&many).len(), given_up(&many).last().map(String::as_str)), (21, Some("and 2 more")));
    }
}
