use std::{error::Error as _, iter::successors};

use reqwest::{Method, Request, StatusCode};

use crate::{core::Code, hub::http::ProblemBody};

/// What a hub says to one request.
pub(super) struct Answer {
    pub status: StatusCode,
    /// After how many seconds it wants to be asked again.
    pub wait: Option<u64>,
    pub bytes: Vec<u8>,
}

/// Whether a request may be sent anew with the same answer: it only looks, or it has a key by which the hub knows it.
///
/// Of a `PUT` or `DELETE` that was done the second answer is another one, and the hub keeps no keys of those.
pub(super) fn is_harmless_twice(request: &Request) -> bool {
    match *request.method() {
        Method::GET => true,
        Method::POST => request.headers().contains_key("Idempotency-Key"),
        _ => false,
    }
}

/// Whether what was asked may be done without its answer having come, or would be done a moment later.
///
/// Who was never there is no hub that begins again.
pub(super) fn is_in_doubt(outcome: &Result<Answer, reqwest::Error>, was_there: bool) -> bool {
    match outcome {
        Err(error) if error.is_connect() => was_there,
        Err(error) => !error.is_timeout() && !is_no_http(error),
        Ok(answer) => {
            let failed = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status);
            let passes = |body: ProblemBody| matches!(body.code, Code::HubDatabase | Code::HubBusy);
            failed && serde_json::from_slice(&answer.bytes).is_ok_and(passes)
        }
    }
}

/// Whether who answers speaks something else than HTTP, as TLS.
fn is_no_http(error: &reqwest::Error) -> bool {
    successors(error.source(), |cause| (**cause).source())
        .any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_answered_the_same_is_harmless_twice() {
        let harmless = |method: &Method, header: &str| {
            let client = reqwest::Client::new();
            is_harmless_twice(&client.request(method.clone(), "http://hub/x").header(header, "x").build().unwrap())
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (method, header) in [(Method::GET, "Accept"), (Method::POST, "Idempotency-Key")] {
            assert!(harmless(&method, header), "{method}");
        }
        for (method, header) in
            [(Method::POST, "Accept"), (Method::PUT, "Idempotency-Key"), (Method::DELETE, "Idempotency-Key")]
        {
            assert!(!harmless(&method, header), "{method}");
        }
    }
}
