//! The operators on libtorch: its own fused ones where it has them, composed ones elsewhere.

use burn::backend::LibTorch;
use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::tensor::Tensor;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use tch::Kind;

use crate::backend::Kernels;
use crate::device::generation::{gpu_free_memory, gpu_has_bf16, gpu_has_f16, gpu_has_tf32};
use crate::device::{DeviceMemory, DevicePanics};
use crate::operators::attention::{self, Attended, AttentionPlan, scale};
use crate::operators::dropout::{self, Dropout};
use crate::operators::layer_norm::{Affine, Normalised};
use crate::operators::padded::{Padded, by_length, gradient_by_length};
use crate::operators::primitive::{primitive, tensor};
use crate::precision::Precision;

type Back = LibTorch<f32>;

fn new(tensor: tch::Tensor) -> TchTensor {
    TchTensor::new(tensor)
}

impl Kernels for Back {
    fn has_bf16(device: &LibTorchDevice) -> bool {
        match device {
            LibTorchDevice::Cpu => processor_has_bf16(),
            LibTorchDevice::Cuda(index) => gpu_has_bf16(*index),
            LibTorchDevice::Mps | LibTorchDevice::Vulkan => false,
        }
    }

    fn has_f16(device: &LibTorchDevice) -> bool {
        match device {
            LibTorchDevice::Cpu => true,
            LibTorchDevice::Cuda(index) => gpu_has_f16(*index),
            LibTorchDevice::Mps | LibTorchDevice::Vulkan => false,
        }
    }

    fn has_tf32(device: &LibTorchDevice) -> bool {
        match device {
            LibTorchDevice::Cuda(index) => gpu_has_tf32(*index),
            LibTorchDevice::Cpu | LibTorchDevice::Mps | LibTorchDevice::Vulkan => false,
        }
    }

    fn tf32_product<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        let _allowed = Tf32::allow();
        left.matmul(right)
    }

    fn device_memory(device: &LibTorchDevice) -> DeviceMemory {
        match device {
            LibTorchDevice::Cpu => DeviceMemory::Host,
            LibTorchDevice::Cuda(index) => DeviceMemory::Own(gpu_free_memory(*index)),
            LibTorchDevice::Mps | LibTorchDevice::Vulkan => DeviceMemory::Own(None),
        }
    }

    fn return_freed_memory(device: &LibTorchDevice) {
        if *device == LibTorchDevice::Cpu {
            return_large_blocks();
        }
    }

    /// Words of libtorch 2.9.0 (`c10/core/impl/alloc_cpu.cpp`, `c10/cuda/CUDACachingAllocator.cpp`) and of the C++
    /// library.
    fn device_panics() -> Option<DevicePanics> {
        let out_of_memory =
            &["DefaultCPUAllocator: ", "CUDA out of memory", "CUDA error: out of memory", "std::bad_alloc"];
        Some(DevicePanics { out_of_memory, threads: &[] })
    }

    fn linear_forward(
        input: TchTensor,
        weight: TchTensor,
        bias: Option<TchTensor>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let (input, weight, bias) = (input.tensor, weight.tensor, bias.map(|bias| bias.tensor));
        let _allowed = (precision == Precision::Tf32).then(Tf32::allow);
        let Some(kind) = factor_kind(precision, &input.device().into()) else {
            return new(input.linear(&weight, bias.as_ref()));
        };
        let none: Option<tch::Tensor> = None;
        let product = input.to_kind(kind).linear(&weight.to_kind(kind), none).to_kind(Kind::Float);
        new(match bias {
            Some(bias) => product + bias,
            None => product,
        })
    }

    fn gelu_gradient(input: TchTensor, gradient: TchTensor) -> TchTensor {
        new(input.tensor.gelu_backward(&gradient.tensor, "none"))
    }

    fn dropout_factors(dropout: Dropout, rows: &[usize], columns: usize, device: &LibTorchDevice) -> TchTensor {
        match device {
            LibTorchDevice::Cpu => dropout::factors_from_host::<Self>(dropout, rows, columns, device),
            _ => dropout::factors_on_device::<Self>(dropout, rows, columns, device),
        }
    }

    fn layer_norm_forward(
        input: TchTensor,
        residual: Option<TchTensor>,
        dropout: Dropout,
        affine: Affine<TchTensor>,
    ) -> Normalised<TchTensor> {
        let input = if dropout.is_none() { input } else { Self::dropout_forward(input, dropout) };
        let sum = match residual {
            Some(residual) => Self::float_add(input, residual),
            None => input,
        };
        let size = sum.tensor.size()[1];
        let (weight, bias) = (&affine.weight.tensor, affine.bias.as_ref().map(|bias| &bias.tensor));
        let (output, mean, scale) = sum.tensor.native_layer_norm(&[size][..], Some(weight), bias, affine.eps);
        Normalised { output: new(output), sum, statistics: new(tch::Tensor::cat(&[mean, scale], 1)) }
    }

    fn attention_forward(qkv: [TchTensor; 3], plan: &AttentionPlan) -> Attended<TchTensor> {
        if !fused(&qkv[0], plan) {
            return attention::composed::<Self>(qkv, plan);
        }
        by_length::<Self>(qkv, plan, |qkv, padded| {
            let [query, key, value] = qkv.map(|x| factor(x, padded));
            let hidden = Some(mask(padded));
            let scale = Some(f64::from(scale(padded.head_size())));
            let (output, log_sum_exp) = tch::Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
                &query, &key, &value, 0.0, false, hidden, scale,
            );
            Attended {
                output: tensor(new(output.to_kind(Kind::Float))),
                log_sum_exp: tensor(new(log_sum_exp.unsqueeze(-1))),
            }
        })
    }

    fn attention_gradient(
        qkv: [TchTensor; 3],
        forward: Attended<TchTensor>,
        gradient: TchTensor,
        plan: &AttentionPlan,
    ) -> [TchTensor; 3] {
        if !fused(&qkv[0], plan) {
            return attention::composed_gradient::<Self>(qkv, forward, gradient, plan);
        }
        gradient_by_length::<Self>(qkv, forward, gradient, plan, |qkv, forward, gradient, padded| {
            let [query, key, value] = qkv.map(|x| factor(x, padded));
            let (output, gradient) = (factor(forward.output, padded), factor(gradient, padded));
            let log_sum_exp = primitive(forward.log_sum_exp).tensor.squeeze_dim(-1);
            let hidden = Some(mask(padded));
            let scale = Some(f64::from(scale(padded.head_size())));
            let (query, key, value) = tch::Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &gradient,
                &query,
                &key,
                &value,
                &output,
                &log_sum_exp,
                0.0,
                false,
                hidden,
                scale,
            );
            [query, key, value].map(|x| tensor(new(x.to_kind(Kind::Float))))
        })
    }
}

/// Returns whether libtorch's own attention can be used: the one for the CPU has a backward, but no dropout; a row
/// without any key, which windows can have, is not defined there.
fn fused(query: &TchTensor, plan: &AttentionPlan) -> bool {
    query.tensor.device() == tch::Device::Cpu && plan.dropout.is_none() && plan.reach.is_none()
}

/// Casts a factor to the requested format.
fn factor(x: Tensor<Back, 4>, padded: &Padded<Back>) -> tch::Tensor {
    let device = x.device();
    let x = primitive(x).tensor;
    match factor_kind(padded.precision, &device) {
        Some(kind) => x.to_kind(kind),
        None => x,
    }
}

/// Returns the format that factors are cast to; none if they stay as they are.
fn factor_kind(precision: Precision, device: &LibTorchDevice) -> Option<Kind> {
    match precision {
        Precision::F32 | Precision::Tf32 => None,
        Precision::Bf16 => Back::has_bf16(device).then_some(Kind::BFloat16),
        Precision::F16 => Back::has_f16(device).then_some(Kind::Half),
    }
}

/// Returns the mask that is added to the products, `[sequences, 1, 1, length]`.
fn mask(padded: &Padded<Back>) -> tch::Tensor {
    let zeros = Tensor::<Back, 4>::zeros(padded.hidden.dims(), &padded.hidden.device());
    primitive(zeros.mask_fill(padded.hidden.clone(), f32::NEG_INFINITY)).tensor
}

/// Returns whether the processor multiplies bfloat16; libtorch needs the same instructions as flex.
fn processor_has_bf16() -> bool {
    burn_flex::Flex::has_bf16(&burn_flex::FlexDevice)
}

/// A guard that lets libtorch's matmuls on a GPU round float32 factors to TF32 until it is dropped. cuBLAS reads the
/// setting when a matmul is launched, so earlier and later ones are not affected.
struct Tf32 {
    before: bool,
}

impl Tf32 {
    fn allow() -> Self {
        let before = Self::is_allowed();
        Self::set(true);
        Self { before }
    }

    fn is_allowed() -> bool {
        // SAFETY: the context is a static of libtorch, and the function reads a flag of it.
        unsafe { allow_tf32_cublas(global_context()) }
    }

    fn set(allowed: bool) {
        // SAFETY: the context is a static of libtorch, and the function sets a flag of it.
        unsafe { set_allow_tf32_cublas(global_context(), allowed) }
    }
}

impl Drop for Tf32 {
    fn drop(&mut self) {
        Self::set(self.before);
    }
}

/// `at::Context` of libtorch.
#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

// The names of C++ functions of libtorch 2.9.0 (`aten/src/ATen/Context.h`), which tch has no bindings of:
// `at::globalContext()`, which gives a reference, and the members `setAllowTF32CuBLAS(bool)` and `allowTF32CuBLAS()
// const`, whose object is the first argument.
unsafe extern "C" {
    #[link_name = "_ZN2at13globalContextEv"]
    fn global_context() -> *mut Context;
    #[link_name = "_ZN2at7Context18setAllowTF32CuBLASEb"]
    fn set_allow_tf32_cublas(context: *mut Context, allowed: bool);
    #[link_name = "_ZNK2at7Context15allowTF32CuBLASEv"]
    fn allow_tf32_cublas(context: *const Context) -> bool;
}

/// Makes glibc return large blocks, which libtorch allocates on the CPU, when they are freed. By default the size that
/// counts as large grows with every block freed, up to 32 MiB, and holes in between stay. A fixed size prevents that.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_large_blocks() {
    const LARGE: libc::c_int = 1 << 20;
    // SAFETY: mallopt(3) may be called at any time, and takes any two numbers.
    if unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) } == 0 {
        tracing::debug!("malloc goes on keeping large blocks");
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn return_large_blocks() {}

#[cfg(all(test, not(feature = "tch-check")))]
mod tests {
    use super::*;

    #[test]
    fn tf32_is_allowed_for_a_product_and_not_before_or_after() {
        assert!(!Tf32::is_allowed(), "libtorch's default");
        {
            let _outer = Tf32::allow();
            assert!(Tf32::is_allowed());
            drop(Tf32::allow());
            assert!(Tf32::is_allowed(), "as it was before the inner one");
        }
        assert!(!Tf32::is_allowed());
        let ones = || Tensor::<Back, 2>::ones([2, 2], &LibTorchDevice::Cpu);
        let product = primitive(Back::tf32_product(ones(), ones())).tensor;
        assert_eq!(Vec::<f32>::try_from(product.flatten(0, 1)).unwrap(), [2.0; 4]);
        assert!(!Tf32::is_allowed());
    }
}
