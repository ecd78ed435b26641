//! The real bundle, built from Go modules on this machine: ten minutes the first time, seconds after that.

use std::path::PathBuf;

use kubecamp::{
    bundle::{BuildRequest, Bundle, Cache, DEFAULT_KUBERNETES, Mirrors, Source, build},
    core::{Arch, Quiet},
};

#[test]
#[ignore = "builds Kubernetes; .ci/check runs it through the command line"]
fn a_real_bundle_comes_out_of_go_modules() {
    let cache = std::env::var_os("KUBECAMP_CACHE").map(PathBuf::from).expect("KUBECAMP_CACHE names the cache");
    let request = BuildRequest {
        kubernetes: DEFAULT_KUBERNETES.to_owned(),
        arch: Arch::Amd64,
        source: Source::Modules,
        replace: vec![],
        out: None,
        cache: Cache::new(cache),
        mirrors: Mirrors::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let built = runtime.block_on(build(request, &Quiet)).map_err(|e| e.to_string()).unwrap();
    let bundle = Bundle::open(&built.path).unwrap();
    bundle.verify(&Quiet).unwrap();
    bundle.check_fits(DEFAULT_KUBERNETES, Arch::Amd64).unwrap();
}
