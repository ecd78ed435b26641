use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Clerk;
use crate::{
    core::{Problem, Secret},
    hub::{domain::Epoch, store::Delivery},
};

/// After this many tries a delivery is given up; with doubling waits that is about a day.
const MOST_TRIES: i64 = 15;
const LONGEST_WAIT: i64 = 4 * 3600;
const PATIENCE: Duration = Duration::from_secs(10);
/// So many webhooks are served at a time.
const AT_ONCE: usize = 8;
/// A round begins no delivery after this. With the last one it is over long before another hub may take what it took.
const ROUND: Duration = Duration::from_secs(10);

/// Why a delivery did not arrive.
enum Unsent {
    /// The other side took it and said no.
    Refused(String),
    /// The other side does not answer.
    Away(String),
}

/// What the header `Kubecamp-Signature` holds: `t=SECONDS,v1=HEX`, an HMAC-SHA256 of `SECONDS.BODY`.
///
/// The time is signed too, so that a recorded message cannot be sent again much later.
pub fn signature(secret: &Secret, sent: Epoch, body: &str) -> String {
    let text = format!("{}.{body}", sent.0);
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map(|mac| mac.chain_update(text).finalize());
    let hex = mac.map(|m| hex::encode(m.into_bytes())).unwrap_or_default();
    format!("t={},v1={hex}", sent.0)
}

/// Who is first changes from second to second. Where so many are silent that a round ends before the last are served,
/// it would be the same ones each time.
fn in_turn<T>(mut hooks: Vec<T>, now: Epoch) -> Vec<T> {
    let first = usize::try_from(now.0).unwrap_or(0) % hooks.len().max(1);
    hooks.rotate_left(first);
    hooks
}

impl Clerk {
    /// Sends the webhooks that are due: several at a time, the events of each in their order; how many arrived.
    ///
    /// What fails is tried again, later each time. It takes as long as the other sides do, so nothing else should wait for
    /// it; cut off, what was not noted is sent once more.
    pub async fn send_hooks(&self, now: Epoch) -> Result<usize, Problem> {
        let mut hooks: BTreeMap<i64, Vec<Delivery>> = BTreeMap::new();
        for one in self.desk.take_deliveries(now).await? {
            hooks.entry(one.hook).or_default().push(one);
        }
        let began = Instant::now();
        let hooks = in_turn(hooks.into_values().collect(), now);
        let sends = hooks.into_iter().map(|due| async move { self.send_in_order(now, began, due).await });
        let outcomes: Vec<Result<usize, Problem>> = stream::iter(sends).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().sum()
    }

    async fn send_in_order(&self, now: Epoch, began: Instant, due: Vec<Delivery>) -> Result<usize, Problem> {
        let mut arrived = 0;
        for (place, one) in due.iter().enumerate() {
            if began.elapsed() > ROUND {
                // At once: a slow receiver would else have one round a minute.
                self.desk.return_deliveries(now, &due[place..], now).await?;
                break;
            }
            let (error, away) = match self.send(now, one).await {
                Ok(()) => (None, false),
                Err(Unsent::Refused(why)) => (Some(why), false),
                Err(Unsent::Away(why)) => (Some(why), true),
            };
            arrived += usize::from(error.is_none());
            let wait = (10i64 << one.tries.clamp(0, 20)).min(LONGEST_WAIT);
            let next = (error.is_some() && one.tries + 1 < MOST_TRIES).then(|| now + wait);
            self.desk.delivered(now, one, error, next).await?;
            // The next would wait as long for nothing; it is due again soon, and no try of it is counted. It comes with the
            // one that failed, unless that has failed so often that it waits for long.
            if away {
                self.desk.return_deliveries(now, &due[place + 1..], one.until.min(now + wait)).await?;
                break;
            }
        }
        Ok(arrived)
    }

    async fn send(&self, now: Epoch, one: &Delivery) -> Result<(), Unsent> {
        let body = serde_json::to_string(&one.event).map_err(|e| Unsent::Refused(e.to_string()))?;
        let request = self
            .client
            .post(&one.url)
            .timeout(PATIENCE)
            .header("Content-Type", "application/json")
            .header("Kubecamp-Event", &one.event.kind)
            .header("Kubecamp-Delivery", one.event.id.to_string())
            .header("Kubecamp-Signature", signature(&one.secret, now, &body));
        // The address may hold a token of the other side; it stays out of what is kept.
        let answer = request.body(body).send().await.map_err(|e| Unsent::Away(e.without_url().to_string()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(Unsent::Refused(format!("it answered {status}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{desk::Desk, store::Store};

    /// A clerk with thirty events for a webhook at `url`.
    async fn with_events(folder: &tempfile::TempDir, url: &str) -> Clerk {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let mut tx = store.write("console", Epoch(1)).await.unwrap();
        tx.add_hook(url, &Secret::new("kcw_x")).await.unwrap();
        for _ in 0..30 {
            tx.tell("server.changed", "server:one".to_owned(), None, None, serde_json::json!({}));
        }
        store.settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
        Clerk::new(Desk::new(store), reqwest::Client::builder().no_proxy().build().unwrap())
    }

    #[tokio::test]
    async fn what_a_round_has_no_time_for_the_next_one_sends() {
        let folder = tempfile::tempdir().unwrap();
        let clerk = with_events(&folder, "http://127.0.0.1:9/").await;
        let due = clerk.desk.take_deliveries(Epoch(2)).await.unwrap();
        assert!(due.len() == 25 && clerk.desk.take_deliveries(Epoch(2)).await.unwrap().is_empty());
        let long_ago = Instant::now().checked_sub(ROUND + Duration::from_secs(1)).unwrap();
        assert_eq!(clerk.send_in_order(Epoch(2), long_ago, due).await.unwrap(), 0);
        let again = clerk.desk.take_deliveries(Epoch(3)).await.unwrap();
        assert!(again.len() == 25 && again.iter().all(|one| one.tries == 0));
    }

    #[tokio::test]
    async fn one_lost_connection_holds_up_the_others_as_long_as_itself() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody listens there any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let clerk = with_events(&folder, &format!("http://127.0.0.1:{port}/")).await;
        assert_eq!(clerk.send_hooks(Epoch(2)).await.unwrap(), 0);
        assert!(clerk.desk.take_deliveries(Epoch(11)).await.unwrap().is_empty());
        let again = clerk.desk.take_deliveries(Epoch(12)).await.unwrap();
        let tries: Vec<i64> = again.iter().map(|one| one.tries).collect();
        assert!(tries.len() == 25 && tries[0] == 1 && tries[1..].iter().all(|many| *many == 0), "{tries:?}");
    }

    #[test]
    fn everybodys_webhook_is_first_in_turn() {
        let first = |second| in_turn((0..9).collect(), Epoch(second)).first().copied();
        let firsts: std::collections::BTreeSet<_> = (1_795_467_600..1_795_467_609).map(first).collect();
        assert_eq!(firsts.len(), 9);
        let mut all = in_turn((0..9).collect(), Epoch(1_795_467_603));
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>(), "nobody is left out");
        assert!(in_turn(Vec::<u8>::new(), Epoch(5)).is_empty());
    }

    #[test]
    fn the_signature_is_what_others_compute() {
        // printf '1795467600.{}' | openssl dgst -sha256 -hmac secret
        let got = signature(&Secret::new("secret"), Epoch(1_795_467_600), "{}");
        assert_eq!(got, "t=1795467600,v1=77625a17c4dad93e6c6512d2fd5c381a47a571b8acf581ba67a2de5803ddbdfa");
    }
}
