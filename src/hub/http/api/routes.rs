use axum::{Json, Router, routing};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::system;
use crate::hub::http::{AppState, ProblemBody};

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
                    Changes take an Idempotency-Key; what has a version takes If-Match with its ETag. \
                    Errors are application/problem+json with a stable code and hints.",
                license(name = "Apache-2.0", identifier = "Apache-2.0")
            ),
            paths($($file::$handler),*),
            components(schemas(ProblemBody)),
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

/// The routes of the API.
pub(in crate::hub::http) fn router() -> Router<AppState> {
    routes().route("/api/v1/openapi.json", routing::get(|| async { Json(openapi()) }))
}
