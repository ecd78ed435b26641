//! `reset`: order, best effort, the proof, and hosts that are not there.

use kubecamp::core::{Code, Event, EventKind, Outcome};

use super::camp::{Camp, steps_of};
use crate::support::simhost::{Login, System, Trouble};

/// What each host of a lab goes through.
const HOST: &[&str] = &[
    "begin",
    "kubelet",
    "kubeadm",
    "containers",
    "mounts",
    "ipvs",
    "links",
    "rules-out",
    "ipsets",
    "files",
    "made",
    "settings",
    "modules-out",
    "forget",
];

async fn running() -> Camp {
    let camp = Camp::on([System::Rocky9, System::Debian12, System::Debian13], Login::Root);
    camp.up().await.good();
    camp.world.forget();
    camp
}

#[tokio::test]
async fn every_host_is_cleaned_in_order_after_the_drain() {
    let camp = running().await;
    camp.reset(&[]).await.good();
    assert_eq!(steps_of(&camp.world, "cp"), [&["drain"], HOST].concat());
    for worker in ["worker-1", "worker-2"] {
        assert_eq!(steps_of(&camp.world, worker), HOST);
        assert!(camp.world.when("cp", "drain") < camp.world.when(worker, "begin"));
    }
}

#[tokio::test]
async fn a_worker_without_its_kubelet_is_not_waited_for_and_cleaned_all_the_same() {
    let camp = running().await;
    camp.host("worker-2").stop_kubelet();
    let seen = camp.reset(&[]).await.good();
    let told = seen.events.iter().find_map(|event| match &event.kind {
        EventKind::StepStarted { step, title, .. } if step.as_str() == "drain" => Some(title.as_str()),
        _ => None,
    });
    assert_eq!(told, Some("drain worker-1, worker-2, not waiting for pods where no kubelet runs: worker-2"));
    assert_eq!(steps_of(&camp.world, "worker-2"), HOST);
}

#[tokio::test]
async fn a_clean_host_is_left_alone_and_up_works_again() {
    let camp = running().await;
    camp.reset(&[]).await.good();
    camp.world.forget();
    let again = camp.reset(&[]).await.good();
    assert_eq!((camp.world.changes(), again.summary.changed), (vec![], 0));
    let up = camp.up().await.good();
    // The kubeconfig is on this computer, where no host's reset reaches.
    assert_eq!(up.ended(Outcome::AlreadyDone), ["cp/kubeconfig/fetch".to_owned()].into());
}

#[tokio::test]
async fn what_is_left_is_named_and_the_others_are_clean() {
    let camp = running().await;
    camp.host("worker-1").residues(&["link\tcni0", "path\t/var/lib/kubelet"]);
    let seen = camp.reset(&[]).await;
    assert_eq!(seen.codes(), [("worker-1", Code::ResetResidue)]);
    let lines = &seen.problems[0].detail;
    assert!(lines.contains(&"link cni0 is there and was not".to_owned()), "{lines:?}");
    assert!(lines.contains(&"path /var/lib/kubelet is there and was not".to_owned()), "{lines:?}");
    assert!(camp.host("worker-1").has("baseline"), "a host that is not clean keeps its record");
    assert!(!camp.host("worker-2").has("baseline") && !camp.host("cp").has("baseline"));
    camp.host("worker-1").residues(&[]);
    camp.world.forget();
    camp.reset(&[]).await.good();
    assert_eq!(steps_of(&camp.world, "worker-1"), ["forget"]);
}

#[tokio::test]
async fn what_others_changed_is_told_line_by_line_and_in_words() {
    let camp = running().await;
    camp.host("worker-1").residues(&[
        "nft\tinet theirs",
        "path\t/etc/sysctl.d/60-theirs.conf",
        "content\tca3d163b2356  /etc/sysctl.d/60-theirs.conf",
    ]);
    let seen = camp.reset(&[]).await.good();
    let told = |event: &Event| match &event.kind {
        EventKind::Note { text, .. } => {
            text.strip_prefix("left alone, as others changed it meanwhile: ").map(str::to_owned)
        }
        _ => None,
    };
    let notes: Vec<String> = seen.events.iter().filter_map(told).collect();
    assert_eq!(notes, ["file /etc/sysctl.d/60-theirs.conf is new", "nft inet theirs is new"]);
}

#[tokio::test]
async fn a_step_that_fails_stops_only_its_host() {
    let camp = running().await;
    camp.host("worker-2").trouble("mounts", Trouble::LinkLost);
    let seen = camp.reset(&[]).await;
    assert_eq!(seen.codes(), [("worker-2", Code::LinkLost)]);
    assert!(seen.problems[0].what.contains("stop-cluster/mounts"), "{}", seen.problems[0]);
    assert_eq!(steps_of(&camp.world, "cp").last(), Some(&"forget"));
}

#[tokio::test]
async fn workers_are_reset_without_their_control_plane() {
    let camp = running().await;
    camp.reset(&["cp"]).await.good();
    assert_eq!(steps_of(&camp.world, "worker-1"), HOST);
    assert!(steps_of(&camp.world, "cp").is_empty());
}

#[tokio::test]
async fn the_control_plane_is_reset_without_a_worker() {
    let camp = running().await;
    camp.reset(&["worker-2"]).await.good();
    assert_eq!(steps_of(&camp.world, "cp"), [&["drain"], HOST].concat());
    assert!(camp.host("worker-2").has("join"));
    // The cluster that it has joined is gone: it joins the new one.
    camp.world.forget();
    camp.up().await.good();
    assert!(steps_of(&camp.world, "worker-2").contains(&"join"));
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(camp.world.changes(), []);
}

#[tokio::test]
async fn a_lab_that_was_only_half_made_is_cleaned_too() {
    let camp = Camp::new();
    camp.host("cp").trouble("containerd", Trouble::Fail(1, "no".into()));
    camp.up().await;
    camp.world.forget();
    camp.reset(&[]).await.good();
    assert_eq!(steps_of(&camp.world, "cp"), HOST);
}

#[tokio::test]
async fn workers_are_reset_although_their_control_plane_fails_in_the_drain() {
    let camp = running().await;
    camp.host("cp").trouble("drain", Trouble::LinkLost);
    let seen = camp.reset(&[]).await;
    assert_eq!(seen.codes(), [("cp", Code::LinkLost)]);
    for worker in ["worker-1", "worker-2"] {
        assert_eq!(steps_of(&camp.world, worker), HOST);
    }
}
