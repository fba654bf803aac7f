//! The properties of an NVIDIA GPU that its driver reports: its generation, which decides the formats in which it
//! multiplies fast, and its memory.

use std::sync::OnceLock;

use cudarc::driver::{result, sys};

/// Compute capability of a GPU: major and minor version.
type Capability = (i32, i32);

/// Products of bfloat16 came with Ampere (CUDA C++ Programming Guide, "Compute Capabilities").
const BF16: Capability = (8, 0);

/// Those of float16 on tensor cores came with Volta.
const F16: Capability = (7, 0);

/// Returns whether the GPU of this index has fast products of bfloat16.
pub(crate) fn gpu_has_bf16(index: usize) -> bool {
    reaches(capability(index), BF16)
}

/// Returns whether the GPU of this index has products of float32 with factors rounded to TF32, which came with those of
/// bfloat16.
pub(crate) fn gpu_has_tf32(index: usize) -> bool {
    gpu_has_bf16(index)
}

/// Returns whether the GPU of this index has fast products of float16.
pub(crate) fn gpu_has_f16(index: usize) -> bool {
    reaches(capability(index), F16)
}

/// Compares capabilities. A GPU whose driver does not report one counts as new.
fn reaches(found: Option<Capability>, least: Capability) -> bool {
    found.is_none_or(|found| found >= least)
}

/// Returns the capability of the GPU of this index. It is needed at every matmul, so the driver is queried once.
fn capability(index: usize) -> Option<Capability> {
    static KNOWN: OnceLock<Vec<Option<Capability>>> = OnceLock::new();
    KNOWN.get_or_init(capabilities).get(index).copied().flatten()
}

/// Queries the capabilities of all devices, in the driver's order.
fn capabilities() -> Vec<Option<Capability>> {
    // SAFETY: looks for a library by its names and loads it, which runs nothing but what the library itself does then.
    if !unsafe { sys::is_culib_present() } || result::init().is_err() {
        return Vec::new();
    }
    let of = |index| {
        let device = result::device::get(index).ok()?;
        // SAFETY: the device is one that `get` gave.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) }.ok();
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Some((major, attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    };
    result::device::get_count().map_or_else(|_| Vec::new(), |count| (0..count).map(of).collect())
}

/// Returns where the GPU of this index is in its machine: PCI domain, bus and device. Partitions of a GPU are at one
/// address. None if the driver does not tell.
pub fn gpu_address(index: usize) -> Option<[i32; 3]> {
    // SAFETY: looks for a library by its names and loads it, which runs nothing but what the library itself does then.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::init().ok()?;
    let device = result::device::get(index.try_into().ok()?).ok()?;
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID,
    };
    let mut address = [0; 3];
    let parts = [CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID];
    for (part, which) in address.iter_mut().zip(parts) {
        // SAFETY: the device is one that `get` gave.
        *part = unsafe { result::device::get_attribute(device, which) }.ok()?;
    }
    Some(address)
}

/// Returns the free memory of the GPU of this index in bytes, as the driver counts it.
pub(crate) fn gpu_free_memory(index: usize) -> Option<u64> {
    // SAFETY: looks for a library by its names and loads it, which runs nothing but what the library itself does then.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::init().ok()?;
    let device = result::device::get(index.try_into().ok()?).ok()?;
    let before = result::ctx::get_current().ok()?;
    // SAFETY: the device is one that `get` gave. The context is the one that libtorch and CubeCL work in, and like them
    // this keeps it until the program ends, so that its own memory counts from the first reading on.
    let context = unsafe { result::primary_ctx::retain(device) }.ok()?;
    // SAFETY: the context was just retained.
    unsafe { result::ctx::set_current(context) }.ok()?;
    let read = result::mem_get_info();
    // SAFETY: what was current on this thread before, or none.
    unsafe { result::ctx::set_current(before.unwrap_or(std::ptr::null_mut())) }.ok()?;
    let (free, _) = read.ok()?;
    Some(free as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float16_came_with_volta_and_bfloat16_with_ampere() {
        let formats = |found| (reaches(found, F16), reaches(found, BF16));
        // A GTX 1080, a V100, a T4, an A100, an RTX 3090, an H100; and one that is not known.
        let known = [(6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)].map(|found| formats(Some(found)));
        let expected = [(false, false), (true, false), (true, false), (true, true), (true, true), (true, true)];
        assert_eq!(known, expected);
        assert_eq!(formats(None), (true, true));
    }
}
