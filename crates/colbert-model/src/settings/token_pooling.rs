//! Hierarchical token pooling: the vectors of a document are grouped by similarity and each group becomes its mean, so
//! that an index holds fewer vectors (Clavie et al. 2024, arXiv 2409.14683).
//!
//! Groups are those of Ward's linkage on cosine distances, cut at the requested number of groups: those of scipy's
//! `linkage(method="ward")` and `fcluster(criterion="maxclust")`, which PyLate 1.6 and sentence-transformers 6.2 use.
//! Means come in the order of each group's first token; the other programs use another order, which does not change
//! MaxSim.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The module of sentence-transformers 6 that pools the vectors of a document.
pub(crate) const POOLING: &str = "HierarchicalTokenPooling";

/// The pooling of the vectors of a document.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenPooling {
    /// Approximate number of tokens for each kept vector: 2 keeps half of them. 1 pools nothing.
    pub factor: f64,
    /// First tokens that are kept as they are; 1 is the `[CLS]` of a document.
    pub protected: usize,
    /// Vectors are normalised to length 1 (sentence-transformers' default); PyLate leaves the means shorter.
    pub unit_length: bool,
}

impl TokenPooling {
    /// Creates a pooling by a factor, with the first token kept and vectors of length 1.
    ///
    /// # Errors
    /// A factor that is below 1 or not finite.
    pub fn new(factor: f64) -> Result<Self, ModelError> {
        if !factor.is_finite() || factor < 1.0 {
            return Err(ModelError::PoolFactor { found: factor });
        }
        Ok(Self { factor, protected: 1, unit_length: true })
    }

    /// Pools the vectors of one document.
    ///
    /// # Shapes
    /// - rows: `[tokens, dim]` row by row, of length 1 each
    /// - output: `[at most tokens, dim]` row by row
    ///
    /// # Panics
    /// If they are not whole rows.
    #[must_use]
    pub fn pool(&self, rows: &[f32], dim: usize) -> Vec<f32> {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows of {dim} numbers");
        let protected = (self.protected * dim).min(rows.len());
        let (kept, rest) = rows.split_at(protected);
        let tokens: Vec<&[f32]> = rest.chunks_exact(dim).collect();
        let wanted = ((tokens.len() as f64 / self.factor).floor() as usize).max(1);
        if self.factor <= 1.0 || wanted >= tokens.len() {
            return rows.to_vec();
        }
        let mut pooled = kept.to_vec();
        for group in groups(&tokens, wanted) {
            let mut sum = vec![0f64; dim];
            for &token in &group {
                sum.iter_mut().zip(tokens[token]).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
            // The sum of opposite vectors has no direction: their mean is not scaled to length 1.
            let divisor = if self.unit_length && length > 1e-12 { length } else { group.len() as f64 };
            pooled.extend(sum.iter().map(|value| (value / divisor) as f32));
        }
        pooled
    }
}

/// Groups of the places of tokens, at most `wanted` of them and each by rising place.
fn groups(tokens: &[&[f32]], wanted: usize) -> Vec<Vec<usize>> {
    let mut merges = ward(tokens);
    merges.sort_by(|a, b| a.height.total_cmp(&b.height));
    // Merges of equal height happen together, as in `fcluster`.
    let cut = merges[tokens.len() - wanted - 1].height;
    let mut first: Vec<usize> = (0..tokens.len()).collect();
    for merge in merges.iter().take_while(|merge| merge.height <= cut) {
        let (one, other) = (root(&first, merge.one), root(&first, merge.other));
        first[one.max(other)] = one.min(other);
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); tokens.len()];
    (0..tokens.len()).for_each(|token| groups[root(&first, token)].push(token));
    groups.retain(|group| !group.is_empty());
    groups
}

fn root(first: &[usize], mut token: usize) -> usize {
    while first[token] != token {
        token = first[token];
    }
    token
}

/// Two groups that become one, each named by one of its tokens.
struct Merge {
    one: usize,
    other: usize,
    height: f64,
}

/// Computes all merges of Ward's linkage, by chains of nearest neighbours (Müllner 2011, arXiv 1109.2378, figure 3),
/// with the update of Lance and Williams.
fn ward(tokens: &[&[f32]]) -> Vec<Merge> {
    let count = tokens.len();
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut distance: Vec<f64> =
        (0..count * count).map(|at| (1.0 - product(tokens[at / count], tokens[at % count])).clamp(0.0, 2.0)).collect();
    let mut sizes = vec![1.0f64; count];
    let mut chain: Vec<usize> = Vec::new();
    let mut merges = Vec::with_capacity(count.saturating_sub(1));
    for _ in 1..count {
        if chain.is_empty() {
            chain.extend(sizes.iter().position(|size| *size > 0.0));
        }
        let (one, other) = loop {
            let last = chain[chain.len() - 1];
            let before = chain.len().checked_sub(2).map(|place| chain[place]);
            let mut nearest = before;
            let mut least = before.map_or(f64::INFINITY, |before| distance[last * count + before]);
            for candidate in (0..count).filter(|candidate| *candidate != last && sizes[*candidate] > 0.0) {
                if distance[last * count + candidate] < least {
                    (nearest, least) = (Some(candidate), distance[last * count + candidate]);
                }
            }
            let nearest = nearest.expect("there are two groups at least, and distances are finite");
            if Some(nearest) == before {
                chain.truncate(chain.len() - 2);
                break (last.min(nearest), last.max(nearest));
            }
            chain.push(nearest);
        };
        let height = distance[one * count + other];
        let (size_one, size_other) = (sizes[one], sizes[other]);
        sizes[one] = 0.0;
        sizes[other] = size_one + size_other;
        for third in (0..count).filter(|third| *third != other && sizes[*third] > 0.0) {
            let size = sizes[third];
            let (to_one, to_other) = (distance[third * count + one], distance[third * count + other]);
            let squared =
                (size + size_one) * to_one.powi(2) + (size + size_other) * to_other.powi(2) - size * height.powi(2);
            let new = (squared.max(0.0) / (size + size_one + size_other)).sqrt();
            distance[third * count + other] = new;
            distance[other * count + third] = new;
        }
        merges.push(Merge { one, other, height });
    }
    merges
}
