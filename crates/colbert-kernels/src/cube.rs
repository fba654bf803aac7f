//! Kernels of GPUs, written once in CubeCL for every runtime: CUDA, and Vulkan, Metal and DirectX 12 through wgpu.
//!
//! Each kernel has the composed version of its operator beside it, in [`operators`](crate::operators), as the oracle of
//! its tests. No kernel uses atomics, and none subgroups but attention on tensor cores: sums are taken in an order that the
//! shapes alone decide, so a run gives the same bits again, and a software driver without subgroups runs the others.

mod adamw;
mod attention;
mod backend;
mod dropout;
mod embed;
#[cfg(feature = "cuda")]
mod exchange;
mod finite;
mod gate;
mod gelu;
mod gpu;
mod launch;
mod layer_norm;
mod linear;
mod maxsim;
mod random;
mod rotation;
mod sums;
#[cfg(test)]
mod tests;
