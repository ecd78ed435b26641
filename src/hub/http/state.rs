use std::{fmt, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{limit::Limiter, metrics::Metrics};
use crate::hub::{desk::Desk, domain::Epoch};

/// Where handlers get the time from; tests have one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Epoch + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Epoch + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The computer's clock.
    pub fn system() -> Self {
        Self::new(|| Epoch(jiff::Timestamp::now().as_second()))
    }

    /// The moment.
    pub fn now(&self) -> Epoch {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// What all handlers share.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The use cases.
    pub desk: Desk,
    /// The time.
    pub clock: Clock,
    /// How this hub is reached, its limits and counters.
    pub site: Arc<Site>,
}

impl AppState {
    /// The moment.
    pub fn now(&self) -> Epoch {
        self.clock.now()
    }
}

/// How a hub is reached, its limits and counters.
#[derive(Debug)]
pub struct Site {
    /// The address that people type, without a slash at its end, as `https://hub.example.org`; for links.
    pub public_url: Option<String>,
    /// Whether people reach it by HTTPS: then cookies are `__Host-` and `Secure`.
    pub secure: bool,
    /// Whether a proxy in front adds `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// Requests per client.
    pub limiter: Limiter,
    /// Tries to sign in per client.
    pub sign_ins: Limiter,
    /// Counters for `/metrics`.
    pub metrics: Metrics,
    /// Cancelled when the hub stops; event streams end then.
    pub stop: CancellationToken,
}

impl Site {
    /// A hub at `public_url`, with `rate` requests per second for each client; 0 is without limit.
    pub fn new(public_url: Option<String>, secure: bool, behind_proxy: bool, rate: u32) -> Self {
        let public_url = public_url.map(|url| url.trim_end_matches('/').to_owned());
        Self {
            secure: secure || public_url.as_ref().is_some_and(|url| url.starts_with("https://")),
            public_url,
            behind_proxy,
            limiter: Limiter::new(f64::from(rate), f64::from(rate) * 8.0),
            // Twenty at once, so that a class behind one address gets in, then one each three seconds.
            sign_ins: Limiter::new(if rate == 0 { 0.0 } else { 0.33 }, 20.0),
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The name of the session cookie.
    pub fn cookie(&self) -> &'static str {
        if self.secure { "__Host-kubecamp" } else { "kubecamp" }
    }
}
