use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, StatusCode};

use crate::hub::{clerk::Ticked, domain::Epoch};

/// Upper bounds of the histogram, milliseconds.
const BOUNDS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 500, 2000];

/// Counters for `/metrics`; what the database knows is added when it is asked.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    within: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
    /// Event streams that are open.
    pub streams: AtomicI64,
    settled: AtomicU64,
    offered: AtomicU64,
    moved: AtomicU64,
    sent: AtomicU64,
    tick: AtomicI64,
}

impl Metrics {
    /// Counts a request.
    pub fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // Methods can be made up by clients; only known ones get a line of their own.
        let known =
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        let key = (route.to_owned(), method.to_owned(), status.as_u16());
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        for (bound, slot) in BOUNDS.iter().zip(&self.within) {
            if took <= Duration::from_millis(*bound) {
                slot.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Counts what the clerk did.
    pub fn ticked(&self, now: Epoch, done: Ticked) {
        let rows = [(&self.settled, done.settled), (&self.offered, done.offered), (&self.moved, done.moved)];
        for (counter, more) in rows {
            counter.fetch_add(more as u64, Ordering::Relaxed);
        }
        self.tick.store(now.0, Ordering::Relaxed);
    }

    /// Counts webhooks that arrived.
    pub fn sent(&self, more: usize) {
        self.sent.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// The counters in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        head(&mut out, "kubecamp_http_requests_total", "counter", "Requests by route, method and status.");
        for ((route, method, status), n) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("route", route.as_str()), ("method", method.as_str()), ("status", &status.to_string())];
            line(&mut out, "kubecamp_http_requests_total", &labels, n);
        }
        let name = "kubecamp_http_request_seconds";
        head(&mut out, name, "histogram", "Time until the answer's head.");
        for (bound, slot) in BOUNDS.iter().zip(&self.within) {
            let le = (*bound as f64 / 1000.0).to_string();
            line(&mut out, &format!("{name}_bucket"), &[("le", &le)], get(slot));
        }
        line(&mut out, &format!("{name}_bucket"), &[("le", "+Inf")], get(&self.count));
        line(&mut out, &format!("{name}_sum"), &[], get(&self.micros) as f64 / 1e6);
        line(&mut out, &format!("{name}_count"), &[], get(&self.count));
        head(&mut out, "kubecamp_event_streams", "gauge", "Open event streams.");
        line(&mut out, "kubecamp_event_streams", &[], self.streams.load(Ordering::Relaxed));
        head(&mut out, "kubecamp_clerk_steps_total", "counter", "What the clerk did by itself.");
        let steps =
            [("settled", &self.settled), ("offered", &self.offered), ("moved", &self.moved), ("sent", &self.sent)];
        for (step, counter) in steps {
            line(&mut out, "kubecamp_clerk_steps_total", &[("step", step)], get(counter));
        }
        head(&mut out, "kubecamp_clerk_last_tick_seconds", "gauge", "When the clerk last did its round.");
        line(&mut out, "kubecamp_clerk_last_tick_seconds", &[], self.tick.load(Ordering::Relaxed));
        out
    }
}

/// The two lines before a metric.
pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One value; labels are escaped.
pub(super) fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let escape = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escape(text))).collect();
    let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(out, "{name}{braces} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_escapes() {
        let metrics = Metrics::default();
        let odd: Method = "EVIL".parse().unwrap();
        metrics.request(&Method::GET, "/a", StatusCode::OK, Duration::from_micros(900));
        metrics.request(&odd, "/a\"\n", StatusCode::OK, Duration::from_millis(30));
        metrics.ticked(Epoch(7), Ticked { offered: 2, ..Ticked::default() });
        let text = metrics.text();
        for want in [
            "kubecamp_http_requests_total{route=\"/a\",method=\"GET\",status=\"200\"} 1\n",
            "kubecamp_http_requests_total{route=\"/a\\\"\\n\",method=\"other\",status=\"200\"} 1\n",
            "kubecamp_http_request_seconds_bucket{le=\"0.001\"} 1\n",
            "kubecamp_http_request_seconds_bucket{le=\"0.05\"} 2\n",
            "kubecamp_http_request_seconds_count 2\n",
            "kubecamp_clerk_steps_total{step=\"offered\"} 2\n",
            "kubecamp_clerk_last_tick_seconds 7\n",
        ] {
            assert!(text.contains(want), "{want}{text}");
        }
    }
}
