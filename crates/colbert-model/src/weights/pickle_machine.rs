//! A machine for pickle programs that make a dictionary of tensors: it never calls anything, and refuses every other
//! instruction by name.

use std::collections::HashMap;

use crate::weights::pickle_values::{Storage, StoredTensor, Value};

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

/// Executes a pickle program on values, without ever calling anything.
pub(super) struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    /// Bytes that may still be copied.
    copies: usize,
}

/// The result of an instruction; the error is a defect in words.
type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    pub(super) fn new(program: &'a [u8]) -> Self {
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

    /// Runs the program to its end, and returns its value.
    pub(super) fn run(mut self) -> Step<Value> {
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
