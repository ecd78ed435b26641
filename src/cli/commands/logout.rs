use serde_json::json;

use super::Context;
use crate::{
    cli::{args::LogoutArgs, hub_client::HubClient, hub_login::say_variable, output},
    core::{Code, Problem, shell::printable},
};

/// `kubecamp logout`: ends the sign-in that is kept here.
///
/// At the hub first: else its token would stay good, and nobody would have it any more to end it.
pub(super) async fn logout(cx: &Context, args: LogoutArgs) -> Result<(), Problem> {
    let done = match HubClient::of_login(&cx.places, &args.hub.at) {
        Ok(Some(client)) => Some(sign_out(&client, args.force).await?),
        Ok(None) => None,
        // There is no way to the hub, as where the file of its authority is gone.
        Err(problem) if args.force => {
            let of = HubClient::forget_unasked(&cx.places, args.hub.at.hub.as_deref())?;
            of.map(|hub| forgotten(&hub, &problem))
        }
        Err(problem) => return Err(untold(problem)),
    };
    let Some(done) = done else {
        let at = args.hub.at.hub.map(|hub| format!(" at {hub}")).unwrap_or_default();
        output::say(&format!("No sign-in{at} is kept here."));
        return Ok(());
    };
    output::say(&done);
    say_variable();
    Ok(())
}

/// Ends a sign-in at the hub and then here; what to say of it.
async fn sign_out(client: &HubClient, force: bool) -> Result<String, Problem> {
    let hub = client.hub();
    let done = match client.secret::<()>("/api/v1/sign-out", &json!({})).await {
        Ok(()) => format!("Signed out at {hub}: the token of this computer is good no more."),
        // It was revoked, or has ended by itself.
        Err(problem) if problem.code == Code::HubSignIn => format!("Signed out at {hub}: the token had ended already."),
        Err(problem) if force => forgotten(hub, &problem),
        Err(problem) => return Err(untold(problem)),
    };
    client.forget()?;
    Ok(done)
}

/// What to say of a sign-in that was forgotten here alone.
fn forgotten(hub: &str, why: &Problem) -> String {
    format!(
        "Forgot the sign-in at {hub}. The hub was not told ({}): its token stays good until it ends, by itself or by \
         kubecamp hub token revoke from another sign-in.",
        printable(&why.what)
    )
}

/// Why the hub could not be told, and how to forget the sign-in all the same.
fn untold(problem: Problem) -> Problem {
    let own = problem.code.hint();
    let problem = if problem.hints.is_empty() { problem.hint(own) } else { problem };
    problem.hint("The sign-in is kept. To forget it all the same, while its token stays good: kubecamp logout --force.")
}
