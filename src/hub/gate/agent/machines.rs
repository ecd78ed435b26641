use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};

use super::{HandOver, MachinesConfig};
use crate::{
    core::{Blob, Code, LabName, Problem, Quiet},
    hub::gate::{Slot, public_key},
    machine::{Engine, ImageRef, Machine, MachineSpec, Provider, State},
    phases::{LocalPlaces, place_of, provider_for_new, provider_in},
    profile::{self, Lab},
};

/// Finds the provider of a lab's machines anew each time: its engine may have been started since. The second value
/// says whether new machines are to be made, whose kind matters.
type Source = Box<dyn Fn(LabName, bool) -> BoxFuture<'static, Result<Arc<dyn Provider>, Problem>> + Send + Sync>;

/// Hands labs over that live in machines on this server: each holder has a lab of their own, stopped and kept between
/// slots with its addresses, so that its cluster goes on where it was.
pub struct Machines {
    source: Source,
    image: Option<String>,
}

/// The snapshot of the last slot's end, for a lab that does not start any more.
const SAVED: &str = "kubecamp-saved";

impl Machines {
    /// Machines of this server's Incus, else of the private engine, which is started where it does not run: a restart
    /// of the server has ended it.
    pub fn here(config: &MachinesConfig) -> Self {
        let places = LocalPlaces {
            engine: config.engine.clone(),
            at: None,
            images: config.images.clone(),
            suite: None,
            kind: config.kind,
            outbound: false,
        };
        let find = move |lab: LabName, fresh: bool| -> BoxFuture<'static, Result<Arc<dyn Provider>, Problem>> {
            let places = places.clone();
            Box::pin(async move {
                let place = match place_of(&places, &lab).await? {
                    Some(place) => place,
                    None => Engine::new(&places.engine).start(&Quiet).await?,
                };
                let provider = match fresh {
                    true => provider_for_new(place, &places, &Quiet).await?,
                    false => provider_in(place, &places)?,
                };
                Ok(Arc::new(provider) as Arc<dyn Provider>)
            })
        };
        Self::of(Box::new(find), config.image.clone())
    }

    /// Machines of another provider.
    pub fn of(source: Source, image: Option<String>) -> Self {
        Self { source, image }
    }

    async fn machines(&self, slot: &Slot, fresh: bool) -> Result<(Arc<dyn Provider>, LabName, Vec<Machine>), Problem> {
        let lab = lab_of(&slot.account)?;
        let provider = (self.source)(lab.clone(), fresh).await?;
        let machines = provider.list(Some(&lab)).await?;
        Ok((provider, lab, machines))
    }

    async fn stop(&self, slot: &Slot) -> Result<(Arc<dyn Provider>, LabName, Vec<Machine>), Problem> {
        let (provider, lab, machines) = self.machines(slot, false).await?;
        let stops = machines.iter().filter(|m| m.state != State::Stopped).map(|m| provider.stop(&lab, &m.node));
        join_all(stops).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok((provider, lab, machines))
    }
}

/// The lab of an account on this server. An account's name may be longer than a lab's, and have a `_`.
fn lab_of(account: &str) -> Result<LabName, Problem> {
    let plain = format!("gate-{account}");
    let name = match plain.parse::<LabName>() {
        Ok(name) if plain.len() <= 24 => return Ok(name),
        _ => format!("gate-x{}", &Blob::from_bytes(account.as_bytes()).sha256()[..20]),
    };
    name.parse().map_err(|e: crate::core::BadId| Problem::new(Code::Internal, "the lab of an account").because(e))
}

#[async_trait]
impl HandOver for Machines {
    fn fit(&self, slot: &Slot) -> Result<(), Problem> {
        let Some(layout) = &slot.layout else { return Ok(()) };
        let unfit =
            |why: &str| Problem::new(Code::GateHandOver, format!("no lab can be made for {}: {why}", slot.account));
        if profile::shipped_text(layout).is_none() {
            return Err(unfit(&format!("this server knows no layout {layout}")).hint("Book another layout."));
        }
        let Some(key) = &slot.key else {
            return Err(unfit("the hub has no public key of theirs").hint("Give the hub your public SSH key."));
        };
        public_key(key).map(drop).map_err(|e| unfit("their public key at the hub is none").because(e))
    }

    async fn save(&self, slot: &Slot) -> Result<(), Problem> {
        // Stopped first: a snapshot of a running disk is that of a machine whose power failed.
        let (provider, lab, machines) = self.stop(slot).await?;
        let snapshots = machines.iter().map(|m| provider.snapshot(&lab, &m.node, SAVED));
        join_all(snapshots).await.into_iter().collect()
    }

    async fn reset(&self, slot: &Slot) -> Result<(), Problem> {
        self.stop(slot).await.map(drop)
    }

    async fn prove(&self, slot: &Slot) -> Result<(), Problem> {
        let (_, _, machines) = self.machines(slot, false).await?;
        let running: Vec<_> = machines.iter().filter(|m| m.state != State::Stopped).map(|m| m.name.clone()).collect();
        if running.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::GateHandOver, "machines of the last holder still run").detail(running))
    }

    async fn arm(&self, slot: &Slot) -> Result<(), Problem> {
        let Some(layout) = &slot.layout else { return Ok(()) };
        let wrong = |why: String| {
            Problem::new(Code::GateHandOver, format!("the lab of {} cannot be brought up: {why}", slot.account))
        };
        let profile = profile::load(layout).map_err(|e| wrong(format!("layout {layout}")).because(e))?;
        let key = slot.key.clone().ok_or_else(|| wrong("the plan has no public key of its holder".into()))?;
        let (provider, name, machines) = self.machines(slot, true).await?;
        let lab = Lab::new(name.clone(), profile).map_err(|e| wrong(format!("layout {layout}")).because(e))?;
        // A lab of another layout cannot become this one.
        let fits = machines.len() == lab.nodes().len() && machines.iter().all(|m| lab.node(&m.node).is_some());
        if !machines.is_empty() && !fits {
            let removed = machines.iter().map(|m| provider.remove(&name, &m.node));
            join_all(removed).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        let image = match &self.image {
            Some(image) if provider.has_image(image).await? => ImageRef::Prepared(image.clone()),
            _ => ImageRef::Node,
        };
        let specs = lab.nodes().iter().map(|node| MachineSpec {
            lab: name.clone(),
            node: node.name.clone(),
            cores: node.cores,
            memory: node.memory,
            disk: node.disk,
            authorized_key: key.clone(),
            image: image.clone(),
        });
        let (provider, kept) = (&provider, fits && !machines.is_empty());
        let ensured = join_all(specs.map(|spec| async move {
            match provider.ensure(&spec, &Quiet).await {
                Err(_) if kept => {
                    provider.restore(&spec.lab, &spec.node, SAVED).await?;
                    provider.ensure(&spec, &Quiet).await.map(drop)
                }
                other => other.map(drop),
            }
        }));
        ensured.await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use super::*;
    use crate::core::{NodeId, Report};

    /// Machines that exist only here: their state, and what was done to them.
    #[derive(Default)]
    struct Shelf {
        machines: Mutex<BTreeMap<(LabName, NodeId), State>>,
        did: Mutex<Vec<String>>,
        broken: Mutex<Option<&'static str>>,
    }

    impl Shelf {
        fn note(&self, what: &str, node: &NodeId) {
            self.did.lock().unwrap().push(format!("{what} {node}"));
        }
        fn set(&self, lab: &LabName, node: &NodeId, state: State) {
            self.machines.lock().unwrap().insert((lab.clone(), node.clone()), state);
        }
        fn did(&self) -> Vec<String> {
            let mut did = std::mem::take(&mut *self.did.lock().unwrap());
            did.sort();
            did
        }
    }

    #[async_trait]
    impl Provider for Shelf {
        fn describe(&self) -> String {
            "a shelf".into()
        }
        async fn ensure(&self, spec: &MachineSpec, _: &dyn Report) -> Result<Machine, Problem> {
            self.note("ensure", &spec.node);
            if self.broken.lock().unwrap().take() == Some("ensure") {
                return Err(Problem::new(Code::MachineStart, "it does not start"));
            }
            self.set(&spec.lab, &spec.node, State::Running);
            Ok(machine(&spec.lab, &spec.node, State::Running))
        }
        async fn list(&self, lab: Option<&LabName>) -> Result<Vec<Machine>, Problem> {
            let all = self.machines.lock().unwrap().clone();
            Ok(all.iter().filter(|((l, _), _)| lab == Some(l)).map(|((l, n), s)| machine(l, n, *s)).collect())
        }
        async fn get(&self, lab: &LabName, node: &NodeId) -> Result<Option<Machine>, Problem> {
            Ok(self.list(Some(lab)).await?.into_iter().find(|m| m.node == *node))
        }
        async fn remove(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
            self.note("remove", node);
            self.machines.lock().unwrap().remove(&(lab.clone(), node.clone()));
            Ok(())
        }
        async fn stop(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
            self.note("stop", node);
            self.set(lab, node, State::Stopped);
            Ok(())
        }
        async fn snapshot(&self, _: &LabName, node: &NodeId, name: &str) -> Result<(), Problem> {
            self.note(name, node);
            Ok(())
        }
        async fn restore(&self, _: &LabName, node: &NodeId, _: &str) -> Result<(), Problem> {
            self.note("restore", node);
            Ok(())
        }
        async fn publish(&self, _: &LabName, _: &NodeId, _: &str) -> Result<(), Problem> {
            Ok(())
        }
        async fn has_image(&self, _: &str) -> Result<bool, Problem> {
            Ok(false)
        }
        async fn drop_image(&self, _: &str) -> Result<(), Problem> {
            Ok(())
        }
    }

    fn machine(lab: &LabName, node: &NodeId, state: State) -> Machine {
        let name = format!("{lab}-{node}");
        let kind = crate::machine::Kind::Container;
        Machine {
            name,
            lab: lab.clone(),
            node: node.clone(),
            kind,
            state,
            address: None,
            netns: None,
            host_keys: vec![],
        }
    }

    fn on(shelf: &Arc<Shelf>) -> Machines {
        let shelf = Arc::clone(shelf);
        let source: Source =
            Box::new(move |_, _| Box::pin(std::future::ready(Ok(Arc::clone(&shelf) as Arc<dyn Provider>))));
        Machines::of(source, None)
    }

    fn slot(layout: &str) -> Slot {
        Slot { layout: Some(layout.into()), key: Some("ssh-ed25519 AAAA x".into()), ..Slot::new("1", "kct_a", 0, 10) }
    }

    #[tokio::test]
    async fn a_lab_is_kept_stopped_and_comes_back() {
        let shelf = Arc::new(Shelf::default());
        let machines = on(&shelf);
        machines.arm(&slot("2x4c8g")).await.unwrap();
        assert_eq!(shelf.did(), ["ensure cp", "ensure worker-1"]);
        assert_eq!(machines.prove(&slot("2x4c8g")).await.unwrap_err().code, Code::GateHandOver);
        machines.save(&slot("2x4c8g")).await.unwrap();
        assert_eq!(shelf.did(), ["kubecamp-saved cp", "kubecamp-saved worker-1", "stop cp", "stop worker-1"]);
        machines.reset(&slot("2x4c8g")).await.unwrap();
        machines.prove(&slot("2x4c8g")).await.unwrap();
        assert_eq!(shelf.did(), Vec::<String>::new(), "what is stopped stays so");
        machines.arm(&slot("2x4c8g")).await.unwrap();
        machines.arm(&slot("1x4c12g")).await.unwrap();
        assert!(shelf.did().contains(&"remove worker-1".to_owned()));
    }

    #[tokio::test]
    async fn a_lab_that_does_not_start_goes_back_to_its_snapshot() {
        let shelf = Arc::new(Shelf::default());
        let machines = on(&shelf);
        machines.arm(&slot("1x4c12g")).await.unwrap();
        machines.save(&slot("1x4c12g")).await.unwrap();
        shelf.did();
        *shelf.broken.lock().unwrap() = Some("ensure");
        machines.arm(&slot("1x4c12g")).await.unwrap();
        assert_eq!(shelf.did(), ["ensure cp", "ensure cp", "restore cp"]);
    }

    #[test]
    fn what_is_only_the_holders_matter_is_known_before_anything_begins() {
        let machines = on(&Arc::new(Shelf::default()));
        let key = crate::hub::gate::HubKey::generate("x").unwrap().public_line().unwrap();
        let good = Slot { key: Some(key), ..slot("2x4c8g") };
        machines.fit(&good).unwrap();
        machines.fit(&Slot::new("1", "kct-a", 0, 10)).unwrap();
        for bad in [
            Slot { key: None, ..good.clone() },
            Slot { key: Some("nonsense".into()), ..good.clone() },
            Slot { layout: Some("9x9c9g".into()), ..good.clone() },
        ] {
            assert_eq!(machines.fit(&bad).unwrap_err().code, Code::GateHandOver, "{bad:?}");
        }
    }

    #[test]
    fn every_account_has_a_lab_of_its_own() {
        assert_eq!(lab_of("kct-a").unwrap().as_str(), "gate-kct-a");
        let long = "a".repeat(32);
        for account in ["a_b", long.as_str(), "a-"] {
            assert!(lab_of(account).unwrap().as_str().starts_with("gate-x"), "{account}");
        }
        assert_ne!(lab_of("a_b").unwrap(), lab_of("a-b").unwrap());
    }
}
