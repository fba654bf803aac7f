//! Adapters of Vulkan, Metal and DirectX 12: a list of them, the limits that they miss, and opening one. CubeCL would
//! panic if one is missing, so it receives devices that were opened here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use burn::backend::wgpu::{RuntimeOptions, WgpuDevice, WgpuSetup, init_device};
use burn_std::future::block_on;
use wgpu::{Backends, DeviceType, Features};

use crate::device::DeviceMemory;
use crate::device::limits::{LEAST_BINDINGS, LEAST_SHARED_BYTES, MOST_UNITS};

/// The interfaces that are searched for adapters.
const INTERFACES: Backends = Backends::VULKAN.union(Backends::METAL).union(Backends::DX12);

/// Bytes that one tensor must be allowed to have: WebGPU guarantees as much everywhere, and BERT-base's table of 30,522
/// words needs less.
const LEAST_BUFFER_BYTES: u64 = 128 << 20;

/// The reason why an adapter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WgpuMissing {
    /// No driver of any interface.
    #[error(
        "no driver of Vulkan, Metal or DirectX 12 was found: install that of the GPU's maker, and for Vulkan its loader \
         (libvulkan1)"
    )]
    Driver,
    /// A driver, but no adapter.
    #[error("{} found no adapter: install the driver of the GPU's maker", interfaces.join(" and "))]
    Adapter {
        /// Interfaces that answered.
        interfaces: Vec<&'static str>,
    },
    /// No adapter of this number.
    #[error("there is no adapter {asked}: this machine has {}", listed(adapters))]
    Device {
        /// The requested number.
        asked: usize,
        /// All adapters.
        adapters: Vec<WgpuAdapter>,
    },
    /// An adapter with too little of something.
    #[error("{adapter} has {found} {what}, and {needed} are needed: choose another adapter, or update its driver")]
    Lacks {
        /// The adapter.
        adapter: WgpuAdapter,
        /// The limit, in the plural.
        what: &'static str,
        /// The adapter's.
        found: u64,
        /// The smallest value that is enough.
        needed: u64,
    },
    /// The driver does not open it.
    #[error("the driver of {adapter} refuses: {reason}")]
    Refused {
        /// The adapter.
        adapter: WgpuAdapter,
        /// The driver's reason.
        reason: String,
    },
}

fn listed(adapters: &[WgpuAdapter]) -> String {
    let each = adapters.iter().enumerate().map(|(index, adapter)| format!("{index}: {adapter}"));
    each.collect::<Vec<_>>().join("; ")
}

/// An adapter as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgpuAdapter {
    /// Name of the GPU.
    pub name: String,
    /// Vulkan, Metal or DirectX 12.
    pub interface: &'static str,
    /// Whether it is software on the CPU.
    pub is_software: bool,
    /// Whether it has memory of its own.
    pub is_discrete: bool,
}

impl fmt::Display for WgpuAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let software = if self.is_software { ", in software" } else { "" };
        write!(f, "{} ({}{software})", self.name, self.interface)
    }
}

fn interface(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Vulkan => "Vulkan",
        wgpu::Backend::Metal => "Metal",
        wgpu::Backend::Dx12 => "DirectX 12",
        _ => "another interface",
    }
}

fn described(info: &wgpu::AdapterInfo) -> WgpuAdapter {
    WgpuAdapter {
        name: info.name.clone(),
        interface: interface(info.backend),
        is_software: info.device_type == DeviceType::Cpu,
        is_discrete: info.device_type == DeviceType::DiscreteGpu,
    }
}

/// The instance, and its adapters in the order of their numbers: GPUs with memory of their own first, software last.
static FOUND: LazyLock<(wgpu::Instance, Vec<wgpu::Adapter>)> = LazyLock::new(|| {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = INTERFACES;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = block_on(instance.enumerate_adapters(INTERFACES));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    (instance, adapters)
});

/// Devices that were opened, by the number of their adapter.
static OPENED: Mutex<BTreeMap<usize, WgpuDevice>> = Mutex::new(BTreeMap::new());

/// Lists the adapters of this machine, in the order of their numbers.
pub fn wgpu_adapters() -> Vec<WgpuAdapter> {
    FOUND.1.iter().map(|adapter| described(&adapter.get_info())).collect()
}

/// Opens the adapter of this number, once; later calls return the same device.
///
/// # Errors
/// There is no such adapter, it lacks something that kernels need, or its driver refuses.
pub fn open_wgpu(index: usize) -> Result<WgpuDevice, WgpuMissing> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&index) {
        return Ok(device.clone());
    }
    let (instance, adapters) = &*FOUND;
    if adapters.is_empty() {
        return Err(nothing(instance));
    }
    let asked = || WgpuMissing::Device { asked: index, adapters: wgpu_adapters() };
    let adapter = adapters.get(index).ok_or_else(asked)?;
    let info = adapter.get_info();
    suffices(&described(&info), &adapter.limits())?;
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        // All features that are not experimental: CubeCL assumes that the device has those of the adapter.
        required_features: adapter
            .features()
            .difference(Features::MAPPABLE_PRIMARY_BUFFERS.union(Features::all_experimental_mask())),
        required_limits: adapter.limits(),
        // CubeCL allocates memory in large pieces itself.
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    });
    let refused =
        |error: wgpu::RequestDeviceError| WgpuMissing::Refused { adapter: described(&info), reason: error.to_string() };
    let (device, queue) = block_on(request).map_err(refused)?;
    let setup =
        WgpuSetup { instance: instance.clone(), adapter: adapter.clone(), device, queue, backend: info.backend };
    let device = init_device(setup, RuntimeOptions::default());
    opened.insert(index, device.clone());
    Ok(device)
}

/// Returns the error for a machine without an adapter: either no interface answers, or one does and has none.
fn nothing(instance: &wgpu::Instance) -> WgpuMissing {
    let answer = block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()));
    let Err(wgpu::RequestAdapterError::NotFound { active_backends, .. }) = answer else {
        return WgpuMissing::Driver;
    };
    let interfaces: Vec<&'static str> = [wgpu::Backend::Vulkan, wgpu::Backend::Metal, wgpu::Backend::Dx12]
        .into_iter()
        .filter(|backend| active_backends.contains(Backends::from(*backend)))
        .map(interface)
        .collect();
    if interfaces.is_empty() { WgpuMissing::Driver } else { WgpuMissing::Adapter { interfaces } }
}

/// Fails on the first limit of an adapter that is too low for the kernels.
fn suffices(adapter: &WgpuAdapter, limits: &wgpu::Limits) -> Result<(), WgpuMissing> {
    let needs = [
        (
            "storage buffers of a shader",
            u64::from(limits.max_storage_buffers_per_shader_stage),
            u64::from(LEAST_BINDINGS),
        ),
        (
            "bytes of memory that a workgroup shares",
            u64::from(limits.max_compute_workgroup_storage_size),
            u64::from(LEAST_SHARED_BYTES),
        ),
        ("invocations of a workgroup", u64::from(limits.max_compute_invocations_per_workgroup), u64::from(MOST_UNITS)),
        ("bytes of a storage buffer", limits.max_storage_buffer_binding_size, LEAST_BUFFER_BYTES),
    ];
    match needs.into_iter().find(|(_, found, needed)| found < needed) {
        Some((what, found, needed)) => Err(WgpuMissing::Lacks { adapter: adapter.clone(), what, found, needed }),
        None => Ok(()),
    }
}

/// Returns where the tensors of a device are. A software device uses the memory of the process. No interface reports
/// how much memory of a GPU is free.
pub(crate) fn memory(device: &WgpuDevice) -> DeviceMemory {
    let opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let number = opened.iter().find(|(_, own)| *own == device).map(|(number, _)| *number);
    let is_software = match (device, number) {
        (WgpuDevice::Cpu, _) => true,
        (_, Some(number)) => FOUND.1[number].get_info().device_type == DeviceType::Cpu,
        // A device that was not opened here: wgpu takes the first adapter by default.
        (_, None) => FOUND.1.iter().all(|adapter| adapter.get_info().device_type == DeviceType::Cpu),
    };
    if is_software { DeviceMemory::Host } else { DeviceMemory::Own(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> WgpuAdapter {
        WgpuAdapter { name: "A GPU".to_owned(), interface: "Vulkan", is_software: false, is_discrete: true }
    }

    #[test]
    fn an_adapter_that_lacks_something_is_refused_by_name() {
        let enough = wgpu::Limits { max_storage_buffers_per_shader_stage: LEAST_BINDINGS, ..wgpu::Limits::default() };
        assert_eq!(suffices(&adapter(), &enough), Ok(()));
        // The limit that WebGPU guarantees is too low for one kernel.
        let message = suffices(&adapter(), &wgpu::Limits::default()).unwrap_err().to_string();
        assert!(message.contains("A GPU (Vulkan)") && message.contains("8 storage buffers"), "{message}");
        let small = wgpu::Limits { max_compute_workgroup_storage_size: 8192, ..enough.clone() };
        let message = suffices(&adapter(), &small).unwrap_err().to_string();
        assert!(message.contains("8192 bytes of memory that a workgroup shares"), "{message}");
        let narrow = wgpu::Limits { max_compute_invocations_per_workgroup: 64, ..enough };
        let message = suffices(&adapter(), &narrow).unwrap_err().to_string();
        assert!(message.contains("64 invocations") && message.contains("128"), "{message}");
    }

    #[test]
    fn each_reason_is_one_sentence() {
        let software = WgpuAdapter { is_software: true, interface: "Metal", ..adapter() };
        let asked = WgpuMissing::Device { asked: 2, adapters: vec![adapter(), software] };
        let message = asked.to_string();
        let expected = "there is no adapter 2: this machine has 0: A GPU (Vulkan); 1: A GPU (Metal, in software)";
        assert_eq!(message, expected);
        let none = WgpuMissing::Adapter { interfaces: vec!["Vulkan"] }.to_string();
        assert_eq!(none, "Vulkan found no adapter: install the driver of the GPU's maker");
        assert!(WgpuMissing::Driver.to_string().contains("libvulkan1"));
    }
}
