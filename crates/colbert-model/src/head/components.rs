//! Principal components of token vectors, as the first weights of a head.

use burn::tensor::Tensor;
use colbert_kernels::{KernelBackend, Precision, linear};
use nalgebra::{DMatrix, SymmetricEigen};

use crate::embeddings::unit_length;
use crate::weights::HostTensor;

/// The sum of the outer products of an encoder's token vectors, each brought to unit length, from which their principal
/// components follow. Nothing is subtracted: scores compare directions from the origin.
#[derive(Debug, Clone)]
pub struct SecondMoment {
    size: usize,
    /// `[size, size]`
    sums: Vec<f64>,
}

impl SecondMoment {
    /// Begins with no vector of `size` numbers.
    pub fn new(size: usize) -> Self {
        Self { size, sums: vec![0.0; size * size] }
    }

    /// Adds hidden vectors, `[tokens, size]`.
    ///
    /// # Panics
    /// If the vectors have another size.
    pub fn add<B: KernelBackend>(&mut self, hidden: Tensor<B, 2>) {
        assert_eq!(hidden.dims()[1], self.size, "numbers of a hidden vector");
        let columns = unit_length(hidden).transpose();
        let products = linear(columns.clone(), columns, None, Precision::F32);
        let products = products.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        self.sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += f64::from(product));
    }

    /// Returns the `dim` principal components with the largest variance, as orthonormal rows `[dim, size]`, the largest
    /// first, each with a positive sum. Vectors that are mapped by them keep as much of their length as `dim` numbers
    /// can (Jolliffe 2002, Principal Component Analysis, section 3.2).
    ///
    /// # Panics
    /// If there are more components than numbers of a vector.
    pub fn components(&self, dim: usize) -> HostTensor {
        assert!(dim <= self.size, "{dim} components of vectors of {} numbers", self.size);
        let eigen = SymmetricEigen::new(DMatrix::from_row_slice(self.size, self.size, &self.sums));
        let mut order: Vec<usize> = (0..self.size).collect();
        order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
        let rows = order[..dim].iter().flat_map(|&place| {
            let column = eigen.eigenvectors.column(place);
            let sign = if column.sum() < 0.0 { -1.0 } else { 1.0 };
            column.iter().map(|value| (sign * value) as f32).collect::<Vec<f32>>()
        });
        HostTensor { shape: vec![dim, self.size], values: rows.collect() }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use test_backend::TestBackend;

    use super::*;

    const SIZE: usize = 12;

    /// Vectors that vary most along three directions, which are not axes.
    fn vectors(tokens: usize) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut uniform = || random.random_range(-1.0f32..1.0);
        let directions: Vec<Vec<f32>> = (0..3).map(|_| (0..SIZE).map(|_| uniform()).collect()).collect();
        let mut vectors = Vec::new();
        for _ in 0..tokens {
            let weights = [3.0 * uniform(), 2.0 * uniform(), uniform()];
            let along = |place: usize| weights.iter().zip(&directions).map(|(weight, own)| weight * own[place]).sum();
            let own: Vec<f32> = (0..SIZE)
                .map(|place| {
                    let sum: f32 = along(place);
                    sum + 0.02 * uniform()
                })
                .collect();
            vectors.extend(own);
        }
        vectors
    }

    fn moment(vectors: &[f32]) -> SecondMoment {
        let device = Default::default();
        let mut moment = SecondMoment::new(SIZE);
        // In parts of unlike length.
        let (first, rest) = vectors.split_at(SIZE * 7);
        for part in [first, rest] {
            let data = TensorData::new(part.to_vec(), [part.len() / SIZE, SIZE]);
            moment.add(Tensor::<TestBackend, 2>::from_data(data, &device));
        }
        moment
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn rows_are_orthonormal_and_keep_what_varies() {
        let vectors = vectors(60);
        let components = moment(&vectors).components(3);
        assert_eq!(components.shape, [3, SIZE]);
        let rows: Vec<&[f32]> = components.values.chunks(SIZE).collect();
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-6, "rows {i} and {j}");
            }
            assert!(a.iter().sum::<f32>() >= 0.0, "row {i}");
        }
        // Along each row, of vectors of unit length in float64.
        let kept = |row: &[f32]| -> f64 {
            vectors.chunks(SIZE).map(|vector| dot(vector, row).powi(2) / dot(vector, vector)).sum::<f64>() / 60.0
        };
        let kept: Vec<f64> = rows.iter().map(|row| kept(row)).collect();
        assert!(kept[0] > kept[1] && kept[1] > kept[2], "{kept:?}");
        assert!(kept.iter().sum::<f64>() > 0.99, "{kept:?}");
    }

    /// One long vector is one direction among many, wherever it is in the list.
    #[test]
    fn every_vector_counts_once_whatever_its_length() {
        let mut vectors = vectors(40);
        let row = |vectors: &[f32]| moment(vectors).components(1).values;
        let expected = row(&vectors);
        vectors[..SIZE].iter_mut().for_each(|value| *value *= 1e4);
        let found = row(&vectors);
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5), "{expected:?} and {found:?}");
        // The first part alone has this direction, in each of its vectors.
        vectors[..SIZE * 7].fill(0.0);
        vectors[..SIZE * 7].iter_mut().step_by(SIZE).for_each(|value| *value = 1.0);
        vectors[SIZE * 7..].iter_mut().step_by(SIZE).for_each(|value| *value = 0.0);
        let kept: f32 = moment(&vectors).components(4).values.iter().step_by(SIZE).map(|value| value * value).sum();
        assert!((kept - 1.0).abs() < 1e-5, "{kept}");
    }

    #[test]
    fn all_components_turn_vectors_and_keep_their_length() {
        let vectors = vectors(40);
        let components = moment(&vectors).components(SIZE);
        for vector in vectors.chunks(SIZE) {
            let turned: f64 = components.values.chunks(SIZE).map(|row| dot(vector, row).powi(2)).sum();
            assert!((turned / dot(vector, vector) - 1.0).abs() < 1e-6, "{turned}");
        }
    }
}
