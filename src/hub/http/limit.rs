use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// So many clients are remembered; then those whose bucket is full again are forgotten.
const MOST: usize = 10_000;

/// A bucket per client: it fills by `rate` each second up to `burst`, and each request takes one.
#[derive(Debug)]
pub struct Limiter {
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Limiter {
    /// A limiter; a rate of 0 lets everything through.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one from the client's bucket, or says after how many seconds there is one again.
    pub fn take(&self, client: &str) -> Result<(), u64> {
        self.take_at(client, Instant::now())
    }

    fn take_at(&self, client: &str, now: Instant) -> Result<(), u64> {
        if self.rate <= 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST && !buckets.contains_key(client) {
            buckets.retain(|_, b| self.filled(*b, now) < self.burst);
            if buckets.len() >= MOST {
                return Err(1);
            }
        }
        let bucket = buckets.entry(client.to_owned()).or_insert(Bucket { left: self.burst, at: now });
        bucket.left = self.filled(*bucket, now);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(((1.0 - bucket.left) / self.rate).ceil() as u64)
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let more = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate;
        (bucket.left + more).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_client_for_itself() {
        let limiter = Limiter::new(2.0, 3.0);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!((0..3).all(|_| limiter.take_at("a", at(0)).is_ok()));
        assert_eq!(limiter.take_at("a", at(0)), Err(1));
        assert_eq!(limiter.take_at("b", at(0)), Ok(()));
        assert_eq!(limiter.take_at("a", at(499)), Err(1));
        assert_eq!(limiter.take_at("a", at(500)), Ok(()));
        assert!((0..3).all(|_| limiter.take_at("a", at(60_000)).is_ok()), "it never fills over the brim");
        assert!(limiter.take_at("a", at(60_000)).is_err());
    }

    #[test]
    fn many_strangers_cost_little_memory() {
        let limiter = Limiter::new(1.0, 1.0);
        let now = Instant::now();
        for n in 0..MOST + 50 {
            let _ = limiter.take_at(&n.to_string(), now);
        }
        assert_eq!(limiter.buckets.lock().unwrap().len(), MOST);
        assert_eq!(limiter.take_at("later", now + Duration::from_secs(9)), Ok(()));
        assert_eq!(limiter.buckets.lock().unwrap().len(), 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let limiter = Limiter::new(0.0, 0.0);
        assert!((0..10_000).all(|_| limiter.take("a").is_ok()));
    }
}
