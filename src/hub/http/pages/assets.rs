use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::draw::{SCRIPT, STYLE};

/// Style, script and icon. Their addresses carry a stamp, so browsers may keep them for a year.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "hub.css" => ("text/css; charset=utf-8", STYLE.clone()),
        "hub.js" => ("text/javascript; charset=utf-8", SCRIPT.clone()),
        "icon.svg" => ("image/svg+xml", super::draw::file("icon.svg")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, text).into_response()
}
