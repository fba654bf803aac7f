//! The optional index of a document folder.
#![cfg(feature = "index")]

use std::collections::BTreeSet;
use std::path::Path;

use ragtrainer::search::{PlaidIndex, TextVectors, VectorFormat, search_vectors};
use ragtrainer::{Document, DocumentFolder, Error};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::folder;

const DIM: usize = 32;

/// Seeded unit vectors around some centres, as token vectors are: `tokens` for each text.
fn vectors(texts: usize, tokens: usize, seed: u64) -> TextVectors {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let centres: Vec<Vec<f32>> = (0..64).map(|_| (0..DIM).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all = TextVectors::new(DIM);
    for _ in 0..texts {
        let mut rows = Vec::new();
        for _ in 0..tokens {
            let centre = &centres[rng.random_range(0..centres.len())];
            let row: Vec<f32> = centre.iter().map(|x| x + rng.random_range(-0.4..0.4)).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            rows.extend(row.iter().map(|x| x / length));
        }
        all.push(&rows);
    }
    all
}

fn documents(first: usize, count: usize) -> Vec<Document> {
    (first..first + count).map(|i| (Some(format!("d{i}")), format!("text {i}")).into()).collect()
}

fn filled(path: &Path, count: usize) -> DocumentFolder {
    let mut kept = DocumentFolder::create(path, DIM, 7, VectorFormat::Float32).unwrap();
    kept.add_vectors(&documents(0, count), &vectors(count, 20, 1)).unwrap();
    kept
}

/// Share of the exact hits that are found.
fn recall(kept: &DocumentFolder, queries: &TextVectors, k: usize) -> f64 {
    let places = |found: Vec<(usize, f32)>| found.into_iter().map(|(place, _)| place).collect::<BTreeSet<usize>>();
    let exact = DocumentFolder::open(kept.path()).unwrap().with_exact_search(true);
    let pairs = search_vectors(queries, kept, k).unwrap().into_iter().zip(search_vectors(queries, &exact, k).unwrap());
    let shares = pairs.map(|(found, exact)| {
        let exact = places(exact);
        places(found).intersection(&exact).count() as f64 / exact.len() as f64
    });
    shares.sum::<f64>() / queries.len() as f64
}

#[test]
fn an_index_finds_what_exact_search_finds_through_additions_deletions_and_compaction() {
    let here = folder();
    let path = here.path().join("kept");
    let mut kept = filled(&path, 1500);
    let queries = vectors(20, 8, 5);
    assert_eq!(recall(&kept, &queries, 10), 1.0, "without an index");
    let mut told = 0;
    kept.build_index(4, &mut |done| told = done).unwrap();
    assert_eq!((told, kept.index()), (1500, Some((4, 0))));
    assert!(recall(&kept, &queries, 10) > 0.9, "{}", recall(&kept, &queries, 10));
    // Scores are those of the folder's own vectors.
    let exact = DocumentFolder::open(&path).unwrap().with_exact_search(true);
    let scores: Vec<_> = search_vectors(&queries, &exact, 1500).unwrap();
    for (found, all) in search_vectors(&queries, &kept, 10).unwrap().iter().zip(&scores) {
        assert!(found.iter().all(|hit| all.contains(hit)));
    }

    // What is added is found before it is in the index, and after.
    kept.add_vectors(&documents(1500, 300), &vectors(300, 20, 2)).unwrap();
    assert_eq!(kept.index(), Some((4, 300)));
    let newest = vectors(300, 20, 2);
    let mut one = TextVectors::new(DIM);
    one.push(newest.rows(123));
    assert_eq!(search_vectors(&one, &kept, 1).unwrap()[0][0].0, 1623);
    assert_eq!(kept.extend_index(&mut |_| {}).unwrap(), 300);
    assert_eq!((kept.index(), kept.extend_index(&mut |_| {}).unwrap()), (Some((4, 0)), 0));
    assert_eq!(search_vectors(&one, &kept, 1).unwrap()[0][0].0, 1623);
    assert_eq!(PlaidIndex::open(kept.index_path().unwrap()).unwrap().len(), 1800);

    // A deleted document is not found, before and after the folder is made compact.
    kept.delete(&["d1623"]).unwrap();
    assert_ne!(search_vectors(&one, &kept, 1).unwrap()[0][0].0, 1623);
    let gone: Vec<String> = (0..1000).map(|i| format!("d{i}")).collect();
    kept.delete(&gone).unwrap();
    assert_eq!((kept.len(), kept.passages(), kept.index()), (799, 799, Some((4, 0))));
    assert_eq!(PlaidIndex::open(kept.index_path().unwrap()).unwrap().len(), 799);
    assert!(recall(&kept, &queries, 10) > 0.9, "{}", recall(&kept, &queries, 10));
    let folders = std::fs::read_dir(&path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, 1, "old indexes are removed");
}

/// A reader whose index a writer replaced goes on with what it opened.
#[test]
fn a_reader_beside_a_writer_of_the_index() {
    let here = folder();
    let path = here.path().join("kept");
    let mut writer = filled(&path, 600);
    writer.build_index(2, &mut |_| {}).unwrap();
    let (opened, unopened) = (DocumentFolder::open(&path).unwrap(), DocumentFolder::open(&path).unwrap());
    let queries = vectors(5, 8, 6);
    let before = search_vectors(&queries, &opened, 5).unwrap();
    writer.add_vectors(&documents(600, 50), &vectors(50, 20, 3)).unwrap();
    writer.extend_index(&mut |_| {}).unwrap();
    assert_eq!(search_vectors(&queries, &opened, 5).unwrap(), before);
    let exact = search_vectors(&queries, &unopened, 5).unwrap();
    assert!(exact.iter().flatten().all(|(place, _)| *place < 600), "it has not seen the new documents");
}

/// What a writer left that was killed while it built an index is not looked at, and removed by the next one.
#[test]
fn an_index_that_was_not_finished_does_not_count() {
    let here = folder();
    let path = here.path().join("kept");
    let mut kept = filled(&path, 400);
    std::fs::create_dir(path.join("index-0")).unwrap();
    std::fs::write(path.join("index-0/metadata.json"), "{").unwrap();
    std::fs::create_dir(path.join("index-7")).unwrap();
    assert_eq!(DocumentFolder::open(&path).unwrap().index(), None);
    assert_eq!(recall(&kept, &vectors(3, 8, 9), 5), 1.0);
    kept.build_index(4, &mut |_| {}).unwrap();
    assert!(!path.join("index-7").exists() && recall(&kept, &vectors(3, 8, 9), 5) > 0.9);
    std::fs::write(path.join("index-0/metadata.json"), "{").unwrap();
    let damaged = search_vectors(&vectors(1, 8, 9), &DocumentFolder::open(&path).unwrap(), 5).unwrap_err();
    assert!(matches!(damaged, Error::Index { .. }), "{damaged}");
}

#[test]
fn few_documents_and_wrong_bits() {
    let here = folder();
    let mut kept = DocumentFolder::create(here.path().join("one"), DIM, 7, VectorFormat::Int8).unwrap();
    assert!(kept.build_index(4, &mut |_| {}).unwrap_err().to_string().contains("no documents"));
    kept.add_vectors(&documents(0, 1), &vectors(1, 3, 1)).unwrap();
    assert!(kept.build_index(3, &mut |_| {}).unwrap_err().to_string().contains("1, 2, 4 or 8"));
    assert!(kept.extend_index(&mut |_| {}).unwrap_err().to_string().contains("build one first"));
    for bits in [1, 2, 4, 8] {
        kept.build_index(bits, &mut |_| {}).unwrap();
        let index = PlaidIndex::open(kept.index_path().unwrap()).unwrap();
        assert_eq!((index.len(), index.nbits(), index.dim()), (1, bits, DIM));
        assert_eq!(index.search(&vectors(1, 3, 1), 5, None).unwrap()[0][0].0, 0);
    }
    assert_eq!(search_vectors(&vectors(1, 3, 1), &kept, 5).unwrap()[0].len(), 1);
}

/// `among` restricts an index, too, and an id that is not there is an error.
#[test]
fn a_search_among_ids_stays_among_them() {
    let here = folder();
    let mut kept = filled(&here.path().join("kept"), 2000);
    kept.build_index(4, &mut |_| {}).unwrap();
    let index = PlaidIndex::open(kept.index_path().unwrap()).unwrap();
    let among: Vec<usize> = (0..2000).step_by(3).collect();
    for found in index.search(&vectors(4, 8, 8), 10, Some(&among)).unwrap() {
        assert!(found.len() == 10 && found.iter().all(|(place, _)| place % 3 == 0), "{found:?}");
    }
}
