//! Number formats of stored token vectors.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::flex::level::{Level, for_each_level};

/// The number format of stored token vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VectorFormat {
    /// The vectors as they are: 4 bytes a number.
    #[default]
    Float32,
    /// Rounded to float16: 2 bytes a number, an error of at most 2^-11 of it.
    Float16,
    /// Whole numbers from -127 to 127 and a float32 scale for each vector: 1 byte a number, an error of at most 1/254
    /// of the vector's largest number.
    Int8,
}

/// Bytes of the scale before the numbers of an int8 vector.
const SCALE: usize = 4;

/// Largest whole number of int8 vectors: the range is symmetric.
const LARGEST: f32 = 127.0;

impl VectorFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Float16, Self::Int8];

    /// Returns the name, as in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
        }
    }

    /// Returns how many bytes a stored vector of `dim` numbers takes.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Float32 => dim * 4,
            Self::Float16 => dim * 2,
            Self::Int8 => SCALE + dim,
        }
    }

    /// Appends vectors in this format to `to`, little-endian.
    ///
    /// # Shapes
    /// - rows: `[tokens, dim]`, row by row
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn encode(self, rows: &[f32], dim: usize, to: &mut Vec<u8>) {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows of {dim} numbers");
        match self {
            Self::Float32 => to.extend(rows.iter().flat_map(|number| number.to_le_bytes())),
            Self::Float16 => to.extend(rows.iter().flat_map(|number| {
                // A number beyond the range becomes the largest one, as infinity would win every comparison.
                f16::from_f32(number.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_le_bytes()
            })),
            Self::Int8 => {
                for row in rows.chunks_exact(dim) {
                    let largest = row.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
                    let scale = largest / LARGEST;
                    to.extend(scale.to_le_bytes());
                    let whole = |number: &f32| if scale > 0.0 { (number / scale).round() as i8 } else { 0 };
                    to.extend(row.iter().map(|number| whole(number).to_le_bytes()[0]));
                }
            }
        }
    }

    /// Appends stored vectors as float32 to `to`.
    ///
    /// # Shapes
    /// - result: `[tokens, dim]`, row by row
    ///
    /// # Panics
    /// If the bytes are not whole rows.
    pub fn decode(self, bytes: &[u8], dim: usize, to: &mut Vec<f32>) {
        assert!(dim > 0 && bytes.len().is_multiple_of(self.row_bytes(dim)), "rows of {dim} numbers");
        let start = to.len();
        to.resize(start + bytes.len() / self.row_bytes(dim) * dim, 0.0);
        self.decode_rows(Level::detect(), bytes, dim, &mut to[start..]);
    }

    /// Returns whether all numbers of stored vectors are finite. Damaged bytes may be NaN, which MaxSim would skip.
    ///
    /// # Shapes
    /// - bytes: whole rows of `dim` numbers
    #[must_use]
    pub fn is_finite(self, bytes: &[u8], dim: usize) -> bool {
        // Without an early end, so that the loops are vectorised.
        let float32 = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x7f80_0000 == 0x7f80_0000;
        let float16 = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & 0x7c00 == 0x7c00;
        !match self {
            Self::Float32 => bytes.as_chunks().0.iter().fold(false, |any, bytes| any | float32(bytes)),
            Self::Float16 => bytes.as_chunks().0.iter().fold(false, |any, bytes| any | float16(bytes)),
            Self::Int8 => bytes.chunks_exact(SCALE + dim).filter_map(<[u8]>::first_chunk).any(float32),
        }
    }

    /// Writes whole rows as float32.
    pub(crate) fn decode_rows(self, level: Level, bytes: &[u8], dim: usize, to: &mut [f32]) {
        match self {
            Self::Float32 => from_float32(level, bytes, to),
            Self::Float16 => from_float16(level, bytes, to),
            Self::Int8 => {
                for (row, to) in bytes.chunks_exact(SCALE + dim).zip(to.chunks_exact_mut(dim)) {
                    let (scale, numbers) = row.split_at(SCALE);
                    let scale = f32::from_le_bytes(scale.try_into().expect("four bytes were split off"));
                    from_int8(level, numbers, scale, to);
                }
            }
        }
    }
}

impl fmt::Display for VectorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for VectorFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("found {name:?}, expected float32, float16 or int8"))
    }
}

for_each_level! {
    /// Reads little-endian float32.
    fn from_float32(bytes: &[u8], to: &mut [f32]) = from_float32_body
}

for_each_level! {
    /// Reads little-endian float16, except infinities and NaN, which are never stored.
    fn from_float16(bytes: &[u8], to: &mut [f32]) = from_float16_body
}

for_each_level! {
    /// Reads whole numbers times a scale.
    fn from_int8(bytes: &[u8], scale: f32, to: &mut [f32]) = from_int8_body
}

#[inline(always)]
fn from_float32_body<const FUSED: bool>(bytes: &[u8], to: &mut [f32]) {
    for (bytes, to) in bytes.as_chunks::<4>().0.iter().zip(to) {
        *to = f32::from_le_bytes(*bytes);
    }
}

#[inline(always)]
fn from_float16_body<const FUSED: bool>(bytes: &[u8], to: &mut [f32]) {
    /// 2^112, the ratio of the two formats' smallest exponents.
    const REBASE: f32 = f32::from_bits(0x7780_0000);
    for (bytes, to) in bytes.as_chunks::<2>().0.iter().zip(to) {
        let bits = u32::from(u16::from_le_bytes(*bytes));
        // Exponent and fraction in their places, then the exponent's base by a product, which is exact and normalises
        // numbers below the smallest exponent too. No branch, so that it is vectorised.
        let size = f32::from_bits((bits & 0x7fff) << 13) * REBASE;
        *to = f32::from_bits(size.to_bits() | (bits & 0x8000) << 16);
    }
}

#[inline(always)]
fn from_int8_body<const FUSED: bool>(bytes: &[u8], scale: f32, to: &mut [f32]) {
    for (byte, to) in bytes.iter().zip(to) {
        *to = f32::from(i8::from_le_bytes([*byte])) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(format: VectorFormat, rows: &[f32], dim: usize) -> Vec<f32> {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        format.encode(rows, dim, &mut bytes);
        assert_eq!(bytes.len(), rows.len() / dim * format.row_bytes(dim));
        format.decode(&bytes, dim, &mut back);
        back
    }

    #[test]
    fn every_finite_float16_is_read_exactly_on_every_level() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|number| number.is_finite()).collect();
        let bytes: Vec<u8> = all.iter().flat_map(|number| number.to_le_bytes()).collect();
        let expected: Vec<u32> = all.iter().map(|number| number.to_f32().to_bits()).collect();
        for level in Level::available() {
            let mut found = vec![0.0; all.len()];
            VectorFormat::Float16.decode_rows(level, &bytes, 1, &mut found);
            assert_eq!(found.iter().map(|number| number.to_bits()).collect::<Vec<_>>(), expected, "{level:?}");
        }
    }

    #[test]
    fn the_error_of_each_format_is_the_one_that_is_promised() {
        let rows: Vec<f32> = (0..640).map(|i| ((i * 37 % 101) as f32 - 50.0) / (51.0 + (i / 128) as f32)).collect();
        assert_eq!(there_and_back(VectorFormat::Float32, &rows, 128), rows);
        for (found, number) in there_and_back(VectorFormat::Float16, &rows, 128).iter().zip(&rows) {
            assert!((found - number).abs() <= number.abs() / 2048.0, "{number} became {found}");
        }
        let found = there_and_back(VectorFormat::Int8, &rows, 128);
        for (found, row) in found.chunks(128).zip(rows.chunks(128)) {
            let allowed = row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 254.0 * 1.0001;
            assert!(found.iter().zip(row).all(|(found, number)| (found - number).abs() <= allowed));
        }
        assert_eq!(there_and_back(VectorFormat::Int8, &[0.0; 4], 2), [0.0; 4]);
        assert_eq!(there_and_back(VectorFormat::Float16, &[1e9, -1e9], 2), [65504.0, -65504.0]);
    }

    #[test]
    fn a_number_that_is_not_finite_is_seen_wherever_it_is() {
        for format in VectorFormat::ALL {
            let mut bytes = Vec::new();
            format.encode(&[0.5; 40 * 8], 8, &mut bytes);
            assert!(format.is_finite(&bytes, 8));
            for row in [0, 17, 39] {
                // The scale of int8 vectors, the first number of others: the highest bytes of a float.
                let (mut damaged, end) = (bytes.clone(), if format == VectorFormat::Float16 { 2 } else { 4 });
                let number = row * format.row_bytes(8) + end;
                damaged[number - 2..number].fill(0xff);
                assert!(!format.is_finite(&damaged, 8), "{format} {row}");
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for format in VectorFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("f32".parse::<VectorFormat>().unwrap_err().contains("float16"));
    }
}
