//! The places of DeBERTa: which row of the table of relative positions a distance has (He et al. 2020, section 3.1, and
//! the buckets of version 2).

/// Places of distances, and the products with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relative {
    /// The largest distance with a place of its own, or the one where the last bucket ends.
    pub(super) farthest: usize,
    /// Buckets to each side; none if each distance has its own place.
    pub(super) buckets: Option<usize>,
    /// Products of queries with places are added.
    pub(super) to_place: bool,
    /// Products of keys with places are added.
    pub(super) from_place: bool,
    /// Factor of all products.
    pub(super) scale: f32,
}

impl Relative {
    /// Places to each side.
    fn span(&self) -> usize {
        self.buckets.unwrap_or(self.farthest)
    }

    /// Returns the number of rows of the table of places.
    pub(super) fn rows(&self) -> usize {
        self.span().saturating_mul(2)
    }

    /// Returns the row of a distance from a key to a query: those within half the buckets have their own, beyond them
    /// buckets grow by powers.
    pub(super) fn place(&self, distance: i64) -> usize {
        let span = self.span() as i64;
        let bucket = match self.buckets {
            None => distance,
            Some(buckets) => bucket(distance, buckets as i64, self.farthest),
        };
        (bucket + span).clamp(0, 2 * span - 1) as usize
    }
}

/// Returns the bucket of a distance, in float32 and in this order, as in transformers.
fn bucket(distance: i64, buckets: i64, farthest: usize) -> i64 {
    let middle = buckets / 2;
    let far = distance.abs();
    if far <= middle {
        return distance;
    }
    let middle = middle as f32;
    let widest = ((farthest as f64 - 1.0) / f64::from(middle)) as f32;
    let beyond = (far as f32 / middle).ln() / widest.ln() * (middle - 1.0);
    (beyond.ceil() + middle) as i64 * distance.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of all distances, with the numbers of DeBERTa-v3.
    #[test]
    fn places_are_those_of_transformers() {
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/deberta-v2");
        let text = std::fs::read_to_string(fixture.join("expected.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let places = json["places"].as_array().unwrap();
        let relative = Relative { farthest: 512, buckets: Some(256), to_place: true, from_place: true, scale: 1.0 };
        assert_eq!(places.len(), 1023);
        for (place, distance) in places.iter().zip(-511..) {
            assert_eq!(relative.place(distance) as u64, place.as_u64().unwrap(), "{distance}");
        }
        let each = Relative { farthest: 8, buckets: None, ..relative };
        assert_eq!((-10..=10).step_by(5).map(|distance| each.place(distance)).collect::<Vec<_>>(), [0, 3, 8, 13, 15]);
    }
}
