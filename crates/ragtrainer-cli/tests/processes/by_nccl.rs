//! Processes with a GPU each, which exchange tensors by NCCL. They run where the backend is `cuda` and there are four GPUs
//! or more: on GPUs, or by `backends/test-on nccl-stand-in`.

use std::path::Path;

use crate::processes::by_mpirun::{alone, ended, mpirun_with};
use crate::program::{Ran, pairs_file, train_arguments};
use crate::support::{backend, folder};
use crate::survival::result;

/// Three steps with dropout.
const THREE: [&str; 10] =
    ["--maxsteps", "3", "--epochs", "20", "--dropout", "0.1", "--learning-rate", "1e-3", "--batch-size", "8"];

/// Whether processes have GPUs here.
fn has_gpus() -> bool {
    backend() == "cuda" && ragtrainer::Backend::from_name("cuda:3").is_ok()
}

fn run(folder: &Path, processes: usize, further: &[&str], environment: &[(&str, &str)]) -> Ran {
    let data = pairs_file(folder);
    let arguments = train_arguments(&data, &[&THREE[..], &["--overwrite", "--precision", "f32"], further].concat());
    ended(mpirun_with(folder, processes, &arguments, environment))
}

/// Places of libraries without those that end with a folder for NCCL.
fn without_nccl() -> String {
    let all = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    all.split(':').filter(|folder| !folder.ends_with("/nccl")).collect::<Vec<_>>().join(":")
}

/// Two and four processes, with NCCL and through the host, have the bits of one.
#[test]
fn gradients_from_gpu_to_gpu_have_the_bits_of_one_process() {
    if !has_gpus() {
        return;
    }
    let here = folder();
    let data = pairs_file(here.path());
    let one = train_arguments(&data, &[&THREE[..], &["--precision", "f32", "--accumsteps", "4"]].concat());
    let one = alone(here.path(), &one);
    assert_eq!(one.code, Some(0), "{}", one.errors);
    let expected = result(&here.path().join("run"));
    let hidden = without_nccl();
    let hosts = Some(("LD_LIBRARY_PATH", hidden.as_str()));
    let ways = [
        (2, "2", None, "between GPUs by NCCL"),
        (4, "1", None, "between GPUs by NCCL"),
        (2, "2", hosts, "through the host's memory, as the library libnccl was not found"),
    ];
    for (processes, accumsteps, environment, told) in ways {
        let ran = run(here.path(), processes, &["--accumsteps", accumsteps], environment.as_slice());
        assert_eq!(ran.code, Some(0), "{processes}: {}{}", ran.output, ran.errors);
        assert_eq!(ran.output.matches(told).count(), 1, "{}", ran.output);
        assert!(result(&here.path().join("run")) == expected, "{processes} processes, {told}");
    }
}

/// What NCCL would refuse goes through the host, and the plan says why.
#[test]
fn the_plan_says_why_nccl_is_not_used() {
    if !has_gpus() {
        return;
    }
    let here = folder();
    let same = run(here.path(), 2, &["--dry-run", "--backend", "cuda:0"], &[]);
    assert_eq!(same.code, Some(0), "{}", same.errors);
    let told = "through the host's memory, as processes 0 and 1 use the same GPU, which NCCL refuses\n";
    assert_eq!(same.output.matches(told).count(), 1, "{}", same.output);
    // Only the stand-in can be of another version.
    if std::env::var_os("CUDA_STAND_IN_INCLUDE").is_some() {
        let old = run(here.path(), 2, &["--dry-run"], &[("NCCL_STAND_IN_VERSION", "2604")]);
        let told = "through the host's memory, as NCCL 2.6.4 is too old: 2.7 or newer is needed\n";
        assert_eq!(old.output.matches(told).count(), 1, "{}{}", old.output, old.errors);
    }
}
