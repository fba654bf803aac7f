//! Reading of `pytorch_model.bin` without running it: the zip archive that `torch.save` writes, and only those
//! instructions of its pickle program that make a dictionary of tensors. Anything else is refused by name.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use half::{bf16, f16};

use crate::error::ModelError;
use crate::weights::HostTensor;
use crate::weights::torch_archive::TorchArchive;

/// Names that a file of weights may refer to, besides storages.
const ALLOWED: [&str; 4] =
    ["collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size"];

/// Most values on the stack, and most that are kept.
const MAX_VALUES: usize = 1 << 22;

/// Deepest nesting of values. A dictionary of tensors needs four; values are dropped by recursion.
const MAX_DEPTH: usize = 32;

/// Bytes that may be copied from and to the memory of kept values, for each byte of the program: a program that copies
/// copies would grow without end.
const COPIES_PER_BYTE: usize = 128;

/// Bytes that a value counts when it is copied, besides its texts.
const VALUE_BYTES: usize = 64;

/// Most axes of a tensor.
const MAX_AXES: usize = 8;

/// Tensors may share a storage, as tied weights do, but at most this many on average.
const MAX_SHARING: usize = 16;

/// Reads the float tensors of a file, as float32.
///
/// # Errors
/// A file that is no such archive, asks for anything but tensors, or whose tensors reach beyond their storage.
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

/// Bytes as float32.
type Widen = fn(&[u8]) -> Vec<f32>;

#[derive(Debug, Clone, PartialEq)]
struct Storage {
    /// Such as `FloatStorage`.
    kind: String,
    /// Name of its file in the archive.
    key: String,
}

impl Storage {
    /// Returns how its bytes become float32; none if it does not hold floats.
    fn widen(&self) -> Option<Widen> {
        Some(match self.kind.as_str() {
            "FloatStorage" => |b| b.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "HalfStorage" => |b| b.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            "BFloat16Storage" => |b| b.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            "DoubleStorage" => |b| b.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
struct StoredTensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl StoredTensor {
    /// Gathers its elements, last axis fastest; none if one lies outside.
    fn gather(&self, storage: &[f32]) -> Option<Vec<f32>> {
        if self.shape.len() > MAX_AXES {
            return None;
        }
        let count = self.shape.iter().try_fold(1usize, |count, length| count.checked_mul(*length))?;
        // A stride of 0 makes many elements of one, so the count alone is no bound.
        if count > storage.len() {
            return None;
        }
        let mut values = Vec::with_capacity(count);
        for element in 0..count {
            let (mut rest, mut at) = (element, self.offset);
            for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                at = at.checked_add((rest % length).checked_mul(*stride)?)?;
                rest /= length;
            }
            values.push(*storage.get(at)?);
        }
        Some(values)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Mark,
    Nothing,
    Int(i64),
    Text(String),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(String),
    Storage(Storage),
    Tensor(StoredTensor),
}

impl Value {
    /// Returns the bytes that a copy of it takes.
    fn size(&self) -> usize {
        let inner = match self {
            Self::Text(text) | Self::Global(text) => text.len(),
            Self::Tuple(values) => values.iter().map(Self::size).sum(),
            Self::Dict(pairs) => pairs.iter().map(|(key, value)| key.size() + value.size()).sum(),
            Self::Tensor(tensor) => 8 * (tensor.shape.len() + tensor.strides.len()),
            Self::Mark | Self::Nothing | Self::Int(_) | Self::Storage(_) => 0,
        };
        VALUE_BYTES + inner
    }

    /// Returns how deeply values are nested, itself included.
    fn depth(&self) -> usize {
        let inner = match self {
            Self::Tuple(values) => values.iter().map(Self::depth).max(),
            Self::Dict(pairs) => pairs.iter().map(|(key, value)| key.depth().max(value.depth())).max(),
            _ => None,
        };
        1 + inner.unwrap_or(0)
    }
}

/// Executes a pickle program on values, without ever calling anything.
struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    /// Bytes that may still be copied.
    copies: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn new(program: &'a [u8]) -> Self {
        let copies = program.len().saturating_mul(COPIES_PER_BYTE);
        Self { program, at: 0, stack: Vec::new(), memo: HashMap::new(), copies }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.program.len());
        let end = end.ok_or_else(|| "the pickle ends too early".to_owned())?;
        let bytes = &self.program[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Step<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("the pickle ends too early")?;
        let text = text(self.take(length)?)?;
        self.at += 1;
        Ok(text)
    }

    fn pop(&mut self) -> Step<Value> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err("the pickle takes a value that is not there".to_owned()),
            Some(value) => Ok(value),
        }
    }

    /// Takes the values above the latest mark, and the mark.
    fn above_mark(&mut self) -> Step<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark);
        let values = self.stack.split_off(mark.ok_or("the pickle lacks a mark")?);
        Self::shallow(values.into_iter().skip(1).collect())
    }

    fn last(&mut self) -> Step<&mut Value> {
        self.stack.last_mut().ok_or_else(|| "the pickle takes a value that is not there".to_owned())
    }

    fn keep(&mut self, number: u32) -> Step<()> {
        let size = self.last()?.size();
        self.spend(size)?;
        let value = self.last()?.clone();
        self.memo.insert(number, value);
        Ok(())
    }

    fn fetch(&mut self, number: u32) -> Step<()> {
        let value = self.memo.get(&number).ok_or("the pickle fetches what it did not keep")?;
        let size = value.size();
        self.stack.push(value.clone());
        self.spend(size)
    }

    fn spend(&mut self, size: usize) -> Step<()> {
        self.copies = self.copies.checked_sub(size).ok_or("the pickle copies its values over and over")?;
        Ok(())
    }

    /// Checks that values may become part of another one.
    fn shallow(values: Vec<Value>) -> Step<Vec<Value>> {
        if values.iter().any(|value| value.depth() >= MAX_DEPTH) {
            return Err("the pickle nests its values too deeply".to_owned());
        }
        Ok(values)
    }

    /// Pushes a name that the program refers to.
    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let full = format!("{module} {name}");
        let storage = module == "torch" && name.ends_with("Storage");
        if !storage && !ALLOWED.contains(&full.as_str()) {
            return Err(format!(
                "it asks for {module}.{name}, which is no part of a file of weights; nothing of it was run"
            ));
        }
        self.stack.push(Value::Global(full));
        Ok(())
    }

    fn set(&mut self, pairs: Vec<Value>) -> Step<()> {
        let Value::Dict(all) = self.last()? else {
            return Err("the pickle sets items of a value that is not a dictionary".to_owned());
        };
        let mut pairs = pairs.into_iter();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            all.push((key, value));
        }
        Ok(())
    }

    fn run(mut self) -> Step<Value> {
        loop {
            if self.stack.len() > MAX_VALUES || self.memo.len() > MAX_VALUES {
                return Err("the pickle makes too many values".to_owned());
            }
            let instruction = self.byte()?;
            match instruction {
                0x80 => drop(self.byte()?),  // protocol
                0x95 => drop(self.take(8)?), // frame
                b'.' => return self.pop(),
                _ => {
                    let known = self.push_literal(instruction)?
                        || self.use_memo(instruction)?
                        || self.push_global(instruction)?
                        || self.build(instruction)?;
                    if !known {
                        return Err(format!(
                            "it has the pickle instruction 0x{instruction:02x}, which no dictionary of tensors needs; \
                             nothing of it was run"
                        ));
                    }
                }
            }
        }
    }

    /// Runs an instruction that pushes a value that is written in the program, or an empty container. Whether it was
    /// one of these.
    fn push_literal(&mut self, instruction: u8) -> Step<bool> {
        match instruction {
            b'(' => self.stack.push(Value::Mark),
            b'}' => self.stack.push(Value::Dict(Vec::new())),
            b')' => self.stack.push(Value::Tuple(Vec::new())),
            b']' => self.stack.push(Value::Tuple(Vec::new())),
            b'N' => self.stack.push(Value::Nothing),
            0x88 => self.stack.push(Value::Int(1)),
            0x89 => self.stack.push(Value::Int(0)),
            b'K' => {
                let number = self.byte()?;
                self.stack.push(Value::Int(number.into()));
            }
            b'M' => {
                let bytes = self.take(2)?;
                self.stack.push(Value::Int(u16::from_le_bytes([bytes[0], bytes[1]]).into()));
            }
            b'J' => {
                let number = self.word()?;
                self.stack.push(Value::Int(i64::from(number.cast_signed())));
            }
            0x8a => {
                let length = self.byte()?;
                let bytes = self.take(length.into())?;
                self.stack.push(Value::Int(long(bytes)?));
            }
            b'G' => drop((self.take(8)?, self.stack.push(Value::Nothing))),
            b'X' => {
                let length = self.word()?;
                let text = text(self.take(length as usize)?)?;
                self.stack.push(Value::Text(text));
            }
            0x8c => {
                let length = self.byte()?;
                let text = text(self.take(length.into())?)?;
                self.stack.push(Value::Text(text));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an instruction that keeps a value or fetches one that was kept. Whether it was one of these.
    fn use_memo(&mut self, instruction: u8) -> Step<bool> {
        match instruction {
            b'q' => {
                let number = self.byte()?;
                self.keep(number.into())?;
            }
            b'r' => {
                let number = self.word()?;
                self.keep(number)?;
            }
            0x94 => self.keep(self.memo.len() as u32)?,
            b'h' => {
                let number = self.byte()?;
                self.fetch(number.into())?;
            }
            b'j' => {
                let number = self.word()?;
                self.fetch(number)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an instruction that names something outside the program. Whether it was one of these.
    fn push_global(&mut self, instruction: u8) -> Step<bool> {
        match instruction {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("the pickle names something by a value that is not a text".to_owned());
                };
                self.global(&module, &name)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an instruction that makes a value of those on the stack. Whether it was one of these.
    fn build(&mut self, instruction: u8) -> Step<bool> {
        match instruction {
            b't' => {
                let values = self.above_mark()?;
                self.stack.push(Value::Tuple(values));
            }
            0x85..=0x87 => {
                let count = usize::from(instruction - 0x84);
                let mut values = (0..count).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
                values.reverse();
                self.stack.push(Value::Tuple(Self::shallow(values)?));
            }
            b'e' => {
                let values = self.above_mark()?;
                match self.last()? {
                    Value::Tuple(all) => all.extend(values),
                    _ => return Err("the pickle extends a value that is not a list".to_owned()),
                }
            }
            b'Q' => {
                let storage = storage(self.pop()?)?;
                self.stack.push(Value::Storage(storage));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.stack.push(made(function, arguments)?);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(Self::shallow(vec![key, value])?)?;
            }
            b'u' => {
                let pairs = self.above_mark()?;
                self.set(pairs)?;
            }
            // Attributes of a dictionary, such as the versions of its modules: not needed.
            b'b' => drop(self.pop()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text(bytes: &[u8]) -> Step<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "the pickle holds a text that is not UTF-8".to_owned())
}

/// Reads a whole number of up to eight bytes, little-endian, two's complement.
fn long(bytes: &[u8]) -> Step<i64> {
    if bytes.len() > 8 {
        return Err("the pickle holds a number beyond 64 bits".to_owned());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}

/// Reads a storage, which torch names as ("storage", kind, key, device, count).
fn storage(value: Value) -> Step<Storage> {
    let Value::Tuple(parts) = value else {
        return Err("the pickle names a storage by a value that is not a tuple".to_owned());
    };
    match parts.as_slice() {
        [Value::Text(word), Value::Global(kind), Value::Text(key), _, _] if word == "storage" => {
            let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
            match kind.strip_prefix("torch ") {
                Some(kind) if plain => Ok(Storage { kind: kind.to_owned(), key: key.clone() }),
                _ => Err("the pickle names an unknown storage".to_owned()),
            }
        }
        _ => Err("the pickle names an unknown storage".to_owned()),
    }
}

/// Calls one of the allowed functions.
fn made(function: Value, arguments: Value) -> Step<Value> {
    let wrong = || "the pickle makes a tensor of what is none".to_owned();
    let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else { return Err(wrong()) };
    match name.as_str() {
        "collections OrderedDict" => Ok(Value::Dict(Vec::new())),
        "torch._utils _rebuild_parameter" => arguments.into_iter().next().ok_or_else(wrong),
        "torch Size" => arguments.into_iter().next().ok_or_else(wrong),
        "torch._utils _rebuild_tensor_v2" => match arguments.as_slice() {
            [Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), ..] => {
                let lengths = |values: &[Value]| {
                    let length = |value: &Value| match value {
                        Value::Int(number) => usize::try_from(*number).map_err(|_| wrong()),
                        _ => Err(wrong()),
                    };
                    values.iter().map(length).collect::<Step<Vec<usize>>>()
                };
                let (shape, strides) = (lengths(shape)?, lengths(strides)?);
                let offset = usize::try_from(*offset).map_err(|_| wrong())?;
                if shape.len() != strides.len() {
                    return Err(wrong());
                }
                Ok(Value::Tensor(StoredTensor { storage: storage.clone(), offset, shape, strides }))
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;

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
