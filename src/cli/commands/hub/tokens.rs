use reqwest::Method;
use serde_json::json;

use super::{super::Context, manage::rows};
use crate::{
    cli::{
        args::TokenCommand,
        clock::{local, zoned},
        hub_client::HubClient,
        output,
    },
    core::{Problem, shell::printable},
    hub::{domain::Epoch, store::TokenRow},
};

/// `kubecamp hub token`.
pub(super) async fn token(cx: &Context, command: TokenCommand) -> Result<(), Problem> {
    match command {
        TokenCommand::Ls { person, hub } => {
            let path = person.map_or_else(|| "/api/v1/tokens".to_owned(), |id| format!("/api/v1/people/{id}/tokens"));
            let all: Vec<TokenRow> = HubClient::new(&cx.places, &hub.at)?.get(&path).await?;
            let made = zoned("MADE");
            output::value(hub.output, &all, |_| rows(&["TOKEN", "FOR", "LABEL", &made, "ENDS", "USED"], &all, row))
        }
        TokenCommand::Revoke { token, hub } => {
            let path = format!("/api/v1/tokens/{token}");
            HubClient::new(&cx.places, &hub.at)?.send::<()>(Method::DELETE, &path, &json!({}), None).await?;
            output::say(&format!("Token {token} has ended: whoever has it is signed out."));
            Ok(())
        }
    }
}

fn row(t: &TokenRow) -> Vec<String> {
    let moment = |at: Option<Epoch>| at.map_or_else(|| "never".to_owned(), local);
    let (kind, label) = (t.kind.as_str().to_owned(), printable(&t.label));
    vec![t.id.clone(), kind, label, local(t.created), moment(t.expires), moment(t.used)]
}
