//! The one hash of the workspace that is stored and compared across runs: 64-bit FNV-1a, by the crate `fnv`.
//!
//! Seeds of random draws depend on it too, so that another hash would change what every run is trained on. It does not
//! withstand an attacker; it tells two data sets or two models apart.

use std::hash::Hasher;

use fnv::FnvHasher;

/// A fingerprint in the making. Equal bytes in equal order give equal numbers, on every machine and with every release.
#[derive(Default)]
pub struct Fingerprint(FnvHasher);

impl Fingerprint {
    /// The fingerprint of nothing, to add bytes to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the fingerprint of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut fingerprint = Self::new();
        fingerprint.add(bytes);
        fingerprint.finish()
    }

    /// Adds bytes. Where they end leaves no trace: add lengths too where that matters.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Adds a number as eight bytes, the lowest first.
    pub fn add_number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    /// Returns the number of all bytes so far.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({:016x})", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints hold such numbers: another algorithm would refuse every run that is resumed.
    #[test]
    fn the_hash_has_the_published_values_of_fnv_1a() {
        assert_eq!(Fingerprint::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fingerprint::of(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fingerprint::of(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
