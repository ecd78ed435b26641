use rust_embed::RustEmbed;
use tera::{Context, Tera};

use crate::core::{Code, Problem};

/// Text that is sent to hosts, embedded in the binary.
#[derive(RustEmbed)]
#[folder = "templates/"]
struct Files;

/// A template's text as it is, for files without variables.
pub fn text(name: &str) -> Result<String, Problem> {
    Files::get(name)
        .map(|f| String::from_utf8_lossy(&f.data).into_owned())
        .ok_or_else(|| Problem::new(Code::Internal, format!("there is no template {name}")))
}

/// Renders `templates/NAME` with `values`; an undefined variable is an error.
pub fn render(name: &str, values: &serde_json::Value) -> Result<String, Problem> {
    let fail = |e: tera::Error| Problem::new(Code::Internal, format!("the template {name} does not render")).because(e);
    let mut tera = Tera::default();
    tera.add_raw_template(name, &text(name)?).map_err(fail)?;
    let context = Context::from_serialize(values).map_err(fail)?;
    tera.render(name, &context).map_err(fail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `NODE` and `LAB` in what is expected stand for the names.
    const PLACES: &[(&str, usize, &str, &str)] = &[
        ("kubeadm/init.yaml.tera", 0, "/nodeRegistration/name", "NODE"),
        ("kubeadm/init.yaml.tera", 1, "/clusterName", "LAB"),
        ("kubeadm/init.yaml.tera", 1, "/apiServer/certSANs/2", "NODE"),
        ("kubeadm/join.yaml.tera", 0, "/nodeRegistration/name", "NODE"),
        ("kubeadm/kubelet.conf.tera", 0, "/current-context", "system:node:NODE@LAB"),
        ("kubeadm/kubelet.conf.tera", 0, "/clusters/0/name", "LAB"),
        ("kubeadm/kubelet.conf.tera", 0, "/contexts/0/name", "system:node:NODE@LAB"),
        ("kubeadm/kubelet.conf.tera", 0, "/contexts/0/context/cluster", "LAB"),
        ("kubeadm/kubelet.conf.tera", 0, "/contexts/0/context/user", "system:node:NODE"),
        ("kubeadm/kubelet.conf.tera", 0, "/users/0/name", "system:node:NODE"),
        ("node/probe.yaml.tera", 2, "/metadata/name", "probe-NODE"),
        ("node/probe.yaml.tera", 2, "/spec/template/spec/nodeSelector/kubernetes.io~1hostname", "NODE"),
        ("node/probe.yaml.tera", 2, "/spec/template/metadata/labels/on", "NODE"),
        ("node/probe.yaml.tera", 3, "/metadata/name", "on-NODE"),
    ];

    #[test]
    fn names_that_yaml_takes_for_something_else_stay_names() {
        for (node, lab) in [("no", "on"), ("n", "y"), ("null", "true"), ("off", "1e3"), ("0x1f", "~"), ("cp", "lab")] {
            let values = json!({
                "node": node, "nodes": [node], "names": [node], "lab": lab, "single": true, "image": "coredns:v1",
                "address": "192.0.2.1", "api": "192.0.2.1", "kubernetes": "v1.36.3", "pod_cidr": "10.244.0.0/16",
                "service_cidr": "10.96.0.0/12",
            });
            for (name, document, place, expected) in PLACES {
                // The script that writes it puts the CA there.
                let text = render(name, &values).unwrap().replace("@@", "LS0t");
                let documents: Vec<Value> = serde_yaml::from_multiple(&text).unwrap();
                let found = documents[*document].pointer(place);
                let expected = expected.replace("NODE", node).replace("LAB", lab);
                assert_eq!(found, Some(&Value::from(expected)), "{name}{place}: {text}");
            }
        }
    }
}
