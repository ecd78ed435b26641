use std::sync::LazyLock;

use axum::{Router, http::header, routing};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{agent, bookings, calendar, events, looking, people, servers, system, tokens};
use crate::hub::{
    gate::Plan,
    http::{AppState, ProblemBody},
};

/// One table makes the routes and their document, so that neither can be without the other.
macro_rules! table {
    ($($method:ident $path:literal => $file:ident :: $handler:ident),* $(,)?) => {
        /// Every route of the API: method and path.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "kubecamp hub",
                description = "Booking of shared servers by time slot. Times are seconds since 1970, windows half-open. \
                    Where an Idempotency-Key is listed a repeat gets the first answer and changes nothing; where an answer \
                    holds a token it is refused. What has a version takes If-Match with its ETag. \
                    Errors are application/problem+json with a stable code and hints.",
                license(name = "Apache-2.0", identifier = "Apache-2.0")
            ),
            paths($($file::$handler),*),
            components(schemas(ProblemBody, Plan)),
            modifiers(&Doors),
            security(("token" = []), ("cookie" = []))
        )]
        struct Document;

        fn routes() -> Router<AppState> {
            Router::new()$(.route($path, routing::$method($file::$handler)))*
        }
    };
}

table! {
    get "/healthz" => system::healthz,
    get "/metrics" => system::metrics,
    get "/calendar/{feed}/slots.ics" => calendar::of_person,
    get "/calendar/{feed}/servers/{server}" => calendar::of_server,
    post "/api/v1/sign-in/challenge" => tokens::challenge,
    post "/api/v1/sign-in/answer" => tokens::answer,
    post "/api/v1/sign-in/link" => tokens::use_link,
    post "/api/v1/sign-out" => tokens::sign_out,
    get "/api/v1/tokens" => tokens::list,
    post "/api/v1/tokens" => tokens::add,
    delete "/api/v1/tokens/{id}" => tokens::revoke,
    get "/api/v1/me" => people::me,
    put "/api/v1/me/keys" => people::set_keys,
    get "/api/v1/people" => people::list,
    post "/api/v1/people" => people::add,
    get "/api/v1/people/{id}" => people::one,
    put "/api/v1/people/{id}" => people::change,
    post "/api/v1/people/{id}/link" => tokens::link,
    get "/api/v1/people/{id}/tokens" => tokens::of_person,
    get "/api/v1/groups" => people::groups,
    put "/api/v1/groups/{id}" => people::put_group,
    delete "/api/v1/groups/{id}" => people::drop_group,
    put "/api/v1/groups/{id}/members/{person}" => people::join,
    delete "/api/v1/groups/{id}/members/{person}" => people::leave,
    get "/api/v1/courses" => people::courses,
    get "/api/v1/courses/{id}" => people::course,
    put "/api/v1/courses/{id}" => people::put_course,
    post "/api/v1/courses/{id}/roster" => people::roster,
    get "/api/v1/servers" => servers::list,
    post "/api/v1/servers" => servers::add,
    get "/api/v1/servers/{id}" => servers::one,
    put "/api/v1/servers/{id}" => servers::change,
    delete "/api/v1/servers/{id}" => servers::remove,
    post "/api/v1/servers/{id}/health" => servers::health,
    post "/api/v1/servers/{id}/maintenance" => servers::add_maintenance,
    post "/api/v1/servers/{id}/agent-token" => servers::agent_token,
    put "/api/v1/servers/{id}/host-keys" => servers::set_host_keys,
    delete "/api/v1/servers/{id}/labs" => servers::forget_labs,
    get "/api/v1/maintenance" => servers::maintenance,
    delete "/api/v1/maintenance/{number}" => servers::drop_maintenance,
    get "/api/v1/free" => looking::free,
    get "/api/v1/labs" => looking::labs,
    get "/api/v1/week" => looking::week,
    get "/api/v1/bookings" => bookings::list,
    post "/api/v1/bookings" => bookings::book,
    get "/api/v1/bookings/{id}" => bookings::one,
    post "/api/v1/bookings/{id}/cancel" => bookings::cancel,
    post "/api/v1/bookings/{id}/release" => bookings::release,
    post "/api/v1/bookings/{id}/extend" => bookings::extend,
    post "/api/v1/bookings/{id}/give" => bookings::give,
    post "/api/v1/bookings/{id}/accept" => bookings::accept,
    post "/api/v1/bookings/{id}/move" => bookings::relocate,
    get "/api/v1/bookings/{id}/alternatives" => bookings::alternatives,
    post "/api/v1/bookings/{id}/certificate" => agent::certificate,
    post "/api/v1/waits" => bookings::wait,
    post "/api/v1/series" => bookings::series,
    post "/api/v1/series/{id}/cancel" => bookings::cancel_series,
    post "/api/v1/class-plans" => looking::plan_class,
    post "/api/v1/class-plans/book" => looking::book_class,
    get "/api/v1/audit" => looking::audit,
    get "/api/v1/doctor" => looking::doctor,
    get "/api/v1/hooks" => people::hooks,
    post "/api/v1/hooks" => people::add_hook,
    delete "/api/v1/hooks/{id}" => people::drop_hook,
    get "/api/v1/events" => events::stream_of,
    get "/api/v1/gate" => agent::keys,
    get "/api/v1/agent/plan" => agent::plan,
    post "/api/v1/agent/events" => agent::events,
    post "/api/v1/agent/heartbeat" => agent::heartbeat,
}

/// The ways to say who one is.
struct Doors;

impl Modify for Doors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let parts = document.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("kct_...").build();
        parts.add_security_scheme("token", SecurityScheme::Http(bearer));
        let cookie = ApiKeyValue::with_description(
            "__Host-kubecamp",
            "The session of a browser; changes also need X-CSRF-Token. Without TLS it is called kubecamp.",
        );
        parts.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document as it is served: anybody may ask for it, and it is long to make.
static WRITTEN: LazyLock<String> = LazyLock::new(|| serde_json::to_string(&openapi()).unwrap_or_default());

/// The routes of the API.
pub(in crate::hub::http) fn router() -> Router<AppState> {
    routes().route(
        "/api/v1/openapi.json",
        routing::get(|| async { ([(header::CONTENT_TYPE, "application/json")], WRITTEN.as_str()) }),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = serde_json::to_value(openapi()).unwrap();
        let mut written = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            written.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
        }
        let served: BTreeSet<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
        assert_eq!(written, served);
        assert_eq!(served.len(), ROUTES.len());
    }

    #[test]
    fn whatever_makes_something_takes_a_key_or_says_that_it_does_not() {
        // These only look, or count by a number of their own.
        let none = ["challenge", "sign-out", "class-plans", "certificate", "heartbeat", "events"];
        let document = serde_json::to_value(openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(post) = item.get("post") else { continue };
            let named = post["parameters"].as_array().into_iter().flatten().any(|p| p["name"] == "Idempotency-Key");
            let refused = post["description"].as_str().unwrap_or_default().contains("takes no Idempotency-Key");
            let only_looks = none.iter().any(|end| path.ends_with(&format!("/{end}")));
            assert_eq!(u8::from(named) + u8::from(refused) + u8::from(only_looks), 1, "{path}");
        }
    }

    #[test]
    fn what_agents_say_and_hear_is_described() {
        let document = serde_json::to_value(openapi()).unwrap();
        let schemas = &document["components"]["schemas"];
        for (name, field) in [
            ("Events", "events"),
            ("Heartbeat", "holding"),
            ("Heartbeat", "tick_age"),
            ("HeartbeatAnswer", "clock"),
            ("Accepted", "accepted"),
            ("SignedPlan", "signature"),
            ("Plan", "slots"),
            ("Slot", "principal"),
        ] {
            assert!(schemas[name]["properties"][field].is_object(), "{name}.{field}: {}", schemas[name]);
        }
        let kinds = schemas["ReportKind"]["oneOf"].as_array().unwrap();
        assert!(kinds.len() >= 6 && kinds.iter().all(|k| k.to_string().contains("\"kind\"")), "{kinds:?}");
        for (path, item) in document["paths"].as_object().unwrap() {
            let vague = item.to_string().contains("\"schema\":{}");
            assert!(!vague, "{path} takes or gives anything");
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = serde_json::to_value(openapi()).unwrap();
        let text = document.to_string();
        let known = document["components"]["schemas"].as_object().unwrap();
        for (at, start) in text.match_indices("#/components/schemas/") {
            let name: String = text[at + start.len()..].chars().take_while(|c| *c != '"').collect();
            assert!(known.contains_key(&name), "{name}");
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{method} {path}");
                let named: BTreeSet<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|p| p["in"] == "path")
                    .filter_map(|p| p["name"].as_str())
                    .collect();
                let wanted: BTreeSet<&str> =
                    path.split('{').skip(1).filter_map(|part| part.split('}').next()).collect();
                assert_eq!(named, wanted, "{method} {path}");
            }
        }
        let ids: Vec<_> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|i| i.as_object().unwrap().values())
            .map(|o| o["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an operation's id comes twice");
    }
}
