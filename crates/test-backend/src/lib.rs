//! The backend that the tests of the other crates run on, so that each is written once.
//!
//! `TEST_BACKEND` names it when the tests are built, and its device when they run: `flex` (also without the variable),
//! `libtorch`, `libtorch:cuda:0`, `cuda`, `cuda:0`, `wgpu`. All but the first need the features `tch`, `cuda` or `wgpu`
//! of this crate and of `ragtrainer`; `backends/test-on` gives them.

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::tensor::backend::BackendTypes;

/// The backend, without gradients.
#[cfg(test_backend = "flex")]
pub type TestBackend = burn_flex::Flex;

/// The backend, without gradients.
#[cfg(test_backend = "libtorch")]
pub type TestBackend = burn::backend::LibTorch<f32>;

/// The backend, without gradients.
#[cfg(test_backend = "cuda")]
pub type TestBackend = burn::backend::Cuda<f32, i32>;

/// The backend, without gradients.
#[cfg(test_backend = "wgpu")]
pub type TestBackend = burn::backend::Wgpu<f32, i32>;

/// The backend to train on.
pub type TestAutodiff = Autodiff<TestBackend>;

/// A device of it.
pub type TestDevice = <TestBackend as BackendTypes>::Device;

/// The folder of the crate whose tests run. Read when they run, so that built tests can be carried to another machine.
///
/// # Panics
/// If `CARGO_MANIFEST_DIR`, which cargo sets, is not there.
pub fn crate_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR, which cargo sets for tests").into()
}

/// The device that `TEST_BACKEND` names.
///
/// # Panics
/// If the variable names another backend than the tests were built for, or no device of it.
pub fn device() -> TestDevice {
    #[cfg(test_backend = "flex")]
    return burn_flex::FlexDevice;
    #[cfg(test_backend = "libtorch")]
    return match named().as_slice() {
        ["libtorch"] => burn::backend::libtorch::LibTorchDevice::Cpu,
        ["libtorch", "cuda", index] => burn::backend::libtorch::LibTorchDevice::Cuda(index.parse().expect("an index")),
        other => panic!("built for libtorch, TEST_BACKEND says {}", other.join(":")),
    };
    #[cfg(test_backend = "cuda")]
    return match named().as_slice() {
        ["cuda"] => burn::backend::cuda::CudaDevice::new(0),
        ["cuda", index] => burn::backend::cuda::CudaDevice::new(index.parse().expect("an index")),
        other => panic!("built for CUDA, TEST_BACKEND says {}", other.join(":")),
    };
    #[cfg(test_backend = "wgpu")]
    return match named().as_slice() {
        ["wgpu"] => burn::backend::wgpu::WgpuDevice::DefaultDevice,
        other => panic!("built for wgpu, TEST_BACKEND says {}", other.join(":")),
    };
}

#[cfg(not(test_backend = "flex"))]
fn named() -> Vec<&'static str> {
    let named = std::env::var("TEST_BACKEND").unwrap_or_default();
    Box::leak(named.into_boxed_str()).split(':').collect()
}
