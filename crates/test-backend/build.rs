//! Makes a `cfg` of the variable `TEST_BACKEND`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TEST_BACKEND");
    println!("cargo::rustc-check-cfg=cfg(test_backend, values(\"flex\", \"libtorch\", \"cuda\", \"wgpu\"))");
    let named = env::var("TEST_BACKEND").unwrap_or_else(|_| "flex".to_owned());
    let (backend, feature) = match named.split(':').next() {
        Some("flex") => ("flex", None),
        Some("libtorch") => ("libtorch", Some(("tch", "CARGO_FEATURE_TCH"))),
        Some("cuda") => ("cuda", Some(("cuda", "CARGO_FEATURE_CUDA"))),
        Some("wgpu") => ("wgpu", Some(("wgpu", "CARGO_FEATURE_WGPU"))),
        _ => panic!("TEST_BACKEND={named}: flex, libtorch, libtorch:cuda:0, cuda, cuda:0 or wgpu"),
    };
    if let Some((feature, variable)) = feature
        && env::var_os(variable).is_none()
    {
        panic!("TEST_BACKEND={named} needs --features test-backend/{feature},ragtrainer/{feature}");
    }
    println!("cargo::rustc-cfg=test_backend=\"{backend}\"");
}
