use axum::{Router, extract::DefaultBodyLimit, middleware};

use super::{AppState, api, guard, pages};

/// The largest body that is read, bytes: a roster of 5,000 people fits.
const LARGEST_BODY: usize = 2 << 20;

/// Everything that the hub serves.
pub fn app(state: AppState) -> Router {
    Router::new()
        .merge(api::router())
        .merge(pages::router())
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}
