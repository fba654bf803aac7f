//! A compressed index over token vectors, in fast-plaid's file format: centroids, and the residuals of the vectors in
//! 1 to 8 bits. `next-plaid` reads and writes it.
//!
//! This file is the one that names that crate. It is asked for nothing that holds all vectors in memory: the centroids
//! come from a sample, then vectors are compressed a batch at a time. Places of passages are the ids of its documents.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use next_plaid::kmeans::{KMeansConfig, compute_centroids, default_config};
use next_plaid::mmap::{convert_f16_to_f32_npy, convert_i64_to_i32_npy, detect_npy_dtype, normalize_u8_npy};
use next_plaid::update::update_index;
use next_plaid::{
    IndexConfig, Metadata, MmapIndex, PreparedCodecArtifacts, ResidualCodec, SearchParameters, delete_from_index,
    encode_index_chunk, prepare_codec_artifacts, write_index_from_encoded_chunks,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Error;
use crate::search::ranking::EncodedSource;
use crate::search::text_vectors::TextVectors;
use crate::search::top::Top;

/// Vectors that are compressed at once: 134 MB of 128 float32, and some copies of them.
const BATCH: usize = 1 << 18;

/// Vectors whose compressed form is in memory before the first files are written: about 1.2 GB at 4 bits. What comes
/// after them is appended, and every append writes the lists of the centroids again.
const FIRST: usize = 1 << 24;

/// Vectors of an append.
const APPEND: usize = 1 << 20;

/// Vectors that centroids are made from at most: 1 GB of 128 float32.
const SAMPLE: usize = 1 << 21;

/// Parts of the sample that centroids are made from, at most.
const CHUNKS: usize = 32;

/// Vectors of which a twentieth, as in fast-plaid, chooses the steps of the residuals.
const HELD_OUT: usize = 1 << 20;

/// Vectors below which those are repeated, so that a twentieth of them is not nothing.
const SMALL: usize = 4096;

/// Vectors that a query token looks at, at least. Lists of centroids are short in small indexes, and after deletions,
/// which keep all centroids: then more of them are looked at than `next-plaid` does by default.
const PROBED: usize = 128;

/// Seed of the sample and the centroids.
const SEED: u64 = 42;

/// An index in a folder of its own, opened for search.
pub struct PlaidIndex {
    path: PathBuf,
    index: MmapIndex,
    /// A copy of a folder that another program wrote, in the form that `next-plaid` reads; removed with this value.
    _copy: Option<Copy>,
}

/// A folder that is removed.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // A copy in the folder for temporary files; nothing depends on it.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl PlaidIndex {
    /// Opens the folder of an index. One that fast-plaid (PyLate) wrote is copied to the folder for temporary files and
    /// converted there, because reading changes it.
    ///
    /// # Errors
    /// A folder that is missing, damaged, or no index.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let metadata = Metadata::load_from_path(path).map_err(wrong("open", path))?;
        if metadata.next_plaid_compatible {
            return Self::load(path, path, None);
        }
        let name = format!("ragtrainer-index-{}-{:?}", std::process::id(), std::thread::current().id());
        let copy = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let to = Copy(copy.clone());
        copy_folder(path, &copy, false)?;
        convert(&copy, metadata).map_err(wrong("convert", path))?;
        Self::load(path, &copy, Some(to))
    }

    fn load(path: &Path, at: &Path, copy: Option<Copy>) -> Result<Self, Error> {
        let index = MmapIndex::load(&text(at)?).map_err(wrong("open", path))?;
        Ok(Self { path: path.to_owned(), index, _copy: copy })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.index.num_documents()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.index.embedding_dim()
    }

    /// Bits of a residual's number.
    pub fn nbits(&self) -> usize {
        self.index.metadata.nbits
    }

    /// Number of centroids.
    pub fn centroids(&self) -> usize {
        self.index.num_partitions()
    }

    /// The best `k` documents for each query, by number, with scores from the compressed vectors, best first. Only
    /// documents among `among`, if that is given. Only documents near the queries' tokens are looked at: there may be
    /// fewer than `k`.
    ///
    /// # Errors
    /// Queries of another size than the vectors, or files that cannot be read.
    pub fn search(
        &self,
        queries: &TextVectors,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<(usize, f32)>>, Error> {
        let subset: Option<Vec<i64>> = among.map(|places| places.iter().map(|place| *place as i64).collect());
        let by_default = SearchParameters::default();
        let lists = (PROBED * self.centroids()).div_ceil(self.index.metadata.num_embeddings.max(1));
        let parameters = SearchParameters {
            top_k: k,
            n_full_scores: by_default.n_full_scores.max(k.saturating_mul(4)),
            n_ivf_probe: by_default.n_ivf_probe.max(lists),
            // Weakly trained models have no centroid as near as the default asks for.
            centroid_score_threshold: None,
            ..by_default
        };
        (0..queries.len())
            .into_par_iter()
            .map(|query| {
                let rows = matrix(queries.rows(query), queries.dim());
                let found =
                    self.index.search(&rows, &parameters, subset.as_deref()).map_err(wrong("search", &self.path))?;
                let places = found.passage_ids.into_iter().map(|place| place as usize);
                let mut top = Top::new(k);
                places.zip(found.scores).for_each(|(place, score)| top.offer(place, score));
                Ok(top.into_sorted())
            })
            .collect()
    }
}

impl std::fmt::Debug for PlaidIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlaidIndex({}, {} documents, {} bits)", self.path.display(), self.len(), self.nbits())
    }
}

/// Writes an index of all places of a source into an empty folder. `progress` is told how
/// many places are done.
pub(crate) fn build(
    source: &dyn EncodedSource,
    vectors: u64,
    nbits: usize,
    to: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<(), Error> {
    let config =
        IndexConfig { nbits, seed: Some(SEED), force_cpu: true, start_from_scratch: 0, ..IndexConfig::default() };
    let artifacts = codec(source, vectors, &config, to)?;
    let (mut chunks, mut compressed, mut place) = (Vec::new(), 0, 0);
    while place < source.places() && compressed < FIRST {
        let (documents, next) = batch(source, place, BATCH)?;
        compressed += documents.iter().map(Array2::nrows).sum::<usize>();
        chunks.push(encode_index_chunk(&documents, &artifacts.codec, true, false).map_err(wrong("write", to))?);
        place = next;
        progress(place);
    }
    write_index_from_encoded_chunks(&chunks, &artifacts, &text(to)?, &config).map_err(wrong("write", to))?;
    drop(chunks);
    append(source, place, &artifacts.codec, to, progress)?;
    settle(to)
}

/// Appends the places from `first` on to an index, with its centroids.
pub(crate) fn extend(
    source: &dyn EncodedSource,
    first: usize,
    to: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<(), Error> {
    let codec = ResidualCodec::load_from_dir(to).map_err(wrong("open", to))?;
    append(source, first, &codec, to, progress)?;
    settle(to)
}

/// Removes documents from an index; the ones behind move up.
pub(crate) fn remove(places: &[Range<usize>], at: &Path) -> Result<(), Error> {
    let ids: Vec<i64> = places.iter().cloned().flatten().map(|place| place as i64).collect();
    delete_from_index(&ids, &text(at)?).map_err(wrong("write", at))?;
    settle(at)
}

/// Copies the files of a folder. Linked files are the same on disk: only for a writer that replaces files as a whole.
pub(crate) fn copy_folder(from: &Path, to: &Path, linked: bool) -> Result<(), Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    std::fs::create_dir_all(to).map_err(io("create", to))?;
    for entry in std::fs::read_dir(from).map_err(io("list", from))? {
        let entry = entry.map_err(io("list", from))?;
        let (file, copy) = (entry.path(), to.join(entry.file_name()));
        if !entry.file_type().map_err(io("read", &file))?.is_file() {
            continue;
        }
        if !linked || std::fs::hard_link(&file, &copy).is_err() {
            std::fs::copy(&file, &copy).map_err(io("copy", &file))?;
        }
    }
    Ok(())
}

/// Centroids and steps of the residuals, from a sample of the passages.
fn codec(
    source: &dyn EncodedSource,
    vectors: u64,
    config: &IndexConfig,
    to: &Path,
) -> Result<PreparedCodecArtifacts, Error> {
    let count = source.places();
    // fast-plaid's size of the sample and number of centroids.
    let wanted = ((1.0 + 16.0 * (120.0 * count as f64).sqrt()) as usize).min(count);
    let average = (vectors as usize).div_ceil(count.max(1)).max(1);
    let wanted = wanted.min((SAMPLE / average).max(1));
    let mut chosen = rand::seq::index::sample(&mut ChaCha8Rng::seed_from_u64(SEED), count, wanted).into_vec();
    // Files are read forwards.
    chosen.sort_unstable();
    let dim = source.dim();
    let (mut sample, mut held_out, mut held) = (Vec::new(), Vec::new(), 0);
    for place in chosen {
        for document in batch(source, place, 1)?.0 {
            sample.extend(document.iter().copied());
            if held < HELD_OUT {
                held += document.nrows();
                held_out.push(document);
            }
        }
    }
    let sample = Array2::from_shape_vec((sample.len() / dim, dim), sample).expect("whole rows");
    let partitions = 1usize << ((16.0 * (vectors as f64).sqrt()).log2().floor() as u32);
    let partitions = partitions.min(sample.nrows());
    // A chunk of the sample holds sums for all centroids until all chunks are done, and each thread the distances of a
    // chunk to a chunk of the centroids: few chunks, whose number does not depend on the threads, and few distances.
    let kmeans = KMeansConfig {
        seed: SEED,
        chunk_size_data: sample.nrows().div_ceil(CHUNKS).max(2048),
        chunk_size_centroids: 512,
        ..default_config(partitions)
    };
    let mut centroids =
        compute_centroids(&sample.view(), partitions, Some(kmeans), true).map_err(wrong("write", to))?;
    drop(sample);
    for mut row in centroids.rows_mut() {
        let length = row.dot(&row).sqrt().max(1e-12);
        row /= length;
    }
    if held < SMALL {
        let times = SMALL.div_ceil(held.max(1));
        held_out = std::iter::repeat_n(held_out, times).flatten().collect();
    }
    prepare_codec_artifacts(&held_out, centroids, config).map_err(wrong("write", to))
}

fn append(
    source: &dyn EncodedSource,
    first: usize,
    codec: &ResidualCodec,
    to: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<(), Error> {
    let mut place = first;
    while place < source.places() {
        let (documents, next) = batch(source, place, APPEND)?;
        update_index(&documents, &text(to)?, codec, None, false, true).map_err(wrong("write", to))?;
        place = next;
        progress(place);
    }
    Ok(())
}

/// Loads an index once, which writes files that a reader would write otherwise, and waits until the disk has all of it.
fn settle(at: &Path) -> Result<(), Error> {
    drop(MmapIndex::load(&text(at)?).map_err(wrong("write", at))?);
    let sync = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(at)? {
            std::fs::File::open(entry?.path())?.sync_all()?;
        }
        colbert_config::durable::sync_folder(at)
    };
    sync().map_err(|source| Error::Io { action: "write", path: at.to_owned(), source })
}

/// Vectors of the passages from `place` on, until they are `most`, and the place behind them. A deleted passage has
/// none, so that numbers of documents stay places.
fn batch(source: &dyn EncodedSource, mut place: usize, most: usize) -> Result<(Vec<Array2<f32>>, usize), Error> {
    let (mut documents, mut vectors, mut buffer) = (Vec::new(), 0, Vec::new());
    while place < source.places() && vectors < most {
        let next = if most == 1 { place + 1 } else { source.places().min(place + 64) };
        let block = source.block(place..next, &mut buffer)?;
        let rows = block.text_vectors(source.dim());
        let mut found = block.places.iter().enumerate().peekable();
        for place in place..next {
            let passage = found.next_if(|(_, found)| **found == place);
            documents.push(matrix(passage.map_or(&[], |(passage, _)| rows.rows(passage)), source.dim()));
        }
        vectors += rows.tokens();
        place = next;
    }
    Ok((documents, place))
}

fn matrix(rows: &[f32], dim: usize) -> Array2<f32> {
    Array2::from_shape_vec((rows.len() / dim, dim), rows.to_vec()).expect("whole rows")
}

/// Does what `next-plaid` does to a folder of fast-plaid when it loads one, without its words to standard error.
fn convert(folder: &Path, mut metadata: Metadata) -> Result<(), next_plaid::Error> {
    for name in ["centroids.npy", "avg_residual.npy", "bucket_cutoffs.npy", "bucket_weights.npy"] {
        let path = folder.join(name);
        if path.exists() && detect_npy_dtype(&path)? == "<f2" {
            convert_f16_to_f32_npy(&path)?;
        }
    }
    let lengths = folder.join("ivf_lengths.npy");
    if lengths.exists() && detect_npy_dtype(&lengths)? == "<i8" {
        convert_i64_to_i32_npy(&lengths)?;
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("merged_") {
            std::fs::remove_file(&path)?;
        } else if name.ends_with(".residuals.npy") && detect_npy_dtype(&path)? == "<u1" {
            normalize_u8_npy(&path)?;
        }
    }
    metadata.next_plaid_compatible = true;
    std::fs::write(folder.join("metadata.json"), serde_json::to_string(&metadata)?)?;
    Ok(())
}

fn text(path: &Path) -> Result<String, Error> {
    let problem = "the index needs a path in Unicode; name another folder";
    path.to_str().map(str::to_owned).ok_or_else(|| Error::DocumentFolder { path: path.to_owned(), problem })
}

fn wrong(action: &'static str, path: &Path) -> impl FnOnce(next_plaid::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Index { action, path, source: Box::new(source) }
}
