//! Reading of `pytorch_model.bin` without running it: the zip archive that `torch.save` writes, and only those
//! instructions of its pickle program that make a dictionary of tensors. Anything else is refused by name.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use crate::error::ModelError;
use crate::weights::HostTensor;
use crate::weights::pickle_machine::Machine;
use crate::weights::pickle_values::Value;
use crate::weights::torch_archive::TorchArchive;

/// Tensors may share a storage, as tied weights do, but at most this many on average.
const MAX_SHARING: usize = 16;

/// Reads the float tensors of a file, as float32.
///
/// # Errors
/// A file that is not such an archive, that refers to anything but tensors, or whose tensors reach beyond their
/// storage.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Io { action: "open", path: path.to_owned(), source })?;
    let broken = |problem: String| ModelError::BrokenPickle { path: path.to_owned(), problem };
    let mut archive = TorchArchive::open(file).map_err(broken)?;
    let program = archive.names().find(|name| name.ends_with("/data.pkl") || *name == "data.pkl");
    let program = program.map(str::to_owned).ok_or_else(|| broken("it holds no data.pkl".to_owned()))?;
    let folder = program.trim_end_matches("data.pkl").to_owned();
    let mut entry = |name: &str| archive.entry(name);
    let Value::Dict(pairs) = Machine::new(&entry(&program).map_err(broken)?).run().map_err(broken)? else {
        return Err(broken("it holds no dictionary of tensors".to_owned()));
    };
    let mut storages: HashMap<String, Vec<f32>> = HashMap::new();
    let (mut stored, mut gathered) = (0usize, 0usize);
    let mut tensors = BTreeMap::new();
    for (name, value) in pairs {
        let (Value::Text(name), Value::Tensor(tensor)) = (name, value) else { continue };
        let Some(widen) = tensor.storage.widen() else { continue };
        if !storages.contains_key(&tensor.storage.key) {
            let bytes = entry(&format!("{folder}data/{}", tensor.storage.key)).map_err(broken)?;
            let numbers = widen(&bytes);
            stored += numbers.len();
            storages.insert(tensor.storage.key.clone(), numbers);
        }
        let values = tensor.gather(&storages[&tensor.storage.key]);
        let values = values.ok_or_else(|| broken(format!("tensor {name} reaches beyond its storage")))?;
        gathered += values.len();
        if gathered > stored.saturating_mul(MAX_SHARING) {
            return Err(broken("its tensors are many times as large as what is stored".to_owned()));
        }
        tensors.insert(name, HostTensor { shape: tensor.shape, values });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;
    use crate::weights::pickle_values::{Storage, StoredTensor};

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/torch").join(name)
    }

    /// Views, transposed tensors, shared storages, parameters and every float type; integers are left out.
    #[test]
    fn tensors_are_those_of_torch() {
        let found = read(&file("state.bin")).unwrap();
        let mut expected = Weights::read(&file("expected.safetensors")).unwrap();
        let names: Vec<String> = expected.names().map(str::to_owned).collect();
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), names);
        for name in names {
            let shape = found[&name].shape.clone();
            assert_eq!(found[&name], expected.take(&name, &shape).unwrap(), "{name}");
        }
    }

    #[test]
    fn a_tensor_beyond_its_storage_is_refused() {
        let storage = Storage { kind: "FloatStorage".into(), key: "0".into() };
        let tensor = |offset, shape: &[usize], strides: &[usize]| StoredTensor {
            storage: storage.clone(),
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        let numbers = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(tensor(1, &[3], &[1]).gather(&numbers).unwrap(), [2.0, 3.0, 4.0]);
        assert!(tensor(2, &[3], &[1]).gather(&numbers).is_none());
        assert!(tensor(0, &[usize::MAX, 2], &[1, 1]).gather(&numbers).is_none());
        assert!(tensor(0, &[1_000_000], &[0]).gather(&numbers).is_none(), "a stride of 0 is no licence to allocate");
        assert!(tensor(usize::MAX, &[2], &[1]).gather(&numbers).is_none());
        assert!(tensor(0, &[1; 9], &[1; 9]).gather(&numbers).is_none(), "no tensor of weights has nine axes");
    }

    /// A value that is doubled by eight bytes, one that is nested by one, and a long text that is fetched by two.
    #[test]
    fn programs_that_grow_without_end_are_refused() {
        let copies = [&b")q\x00"[..], &b"h\x00h\x00\x86q\x00".repeat(100_000)].concat();
        let nested = [&b")"[..], &b"\x85".repeat(100_000)].concat();
        for (mut program, part) in [(copies, "over and over"), (nested, "too deeply")] {
            program.push(b'.');
            let error = Machine::new(&program).run().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let text = [b"X\x00\x10\x00\x00", &[b'x'; 4096][..], b"q\x00", &b"h\x00".repeat(10_000), b"."].concat();
        let error = Machine::new(&text).run().unwrap_err();
        assert!(error.contains("over and over"), "{error}");
    }

    #[test]
    fn programs_that_end_early_or_lack_values_are_errors() {
        for program in [&b""[..], b"(", b"}R.", b"h\x05.", b"X\xff\xff\xff\xff", b"cposix\nsystem\n.", b"K\x01K\x02s."]
        {
            assert!(Machine::new(program).run().is_err(), "{program:?}");
        }
    }
}
