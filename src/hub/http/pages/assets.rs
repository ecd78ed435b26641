use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use super::{
    super::{Answer, ApiPath},
    draw::{SCRIPT, STYLE},
};
use crate::core::{Code, Problem};

/// Style, script and icon.
///
/// Their addresses carry a stamp, so browsers may keep them for a year.
pub(super) async fn asset(ApiPath(name): ApiPath<String>) -> Answer<Response> {
    let (kind, text) = match name.as_str() {
        "hub.css" => ("text/css; charset=utf-8", STYLE.clone()),
        "hub.js" => ("text/javascript; charset=utf-8", SCRIPT.clone()),
        "icon.svg" => ("image/svg+xml", super::draw::file("icon.svg")),
        _ => return Err(Problem::new(Code::HubUnknown, "there is no such file").into()),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, text).into_response())
}
