//! Token pooling against PyLate and sentence-transformers (`token_pooling/make_token_pooling.py`).

use colbert_model::TokenPooling;
use serde_json::Value;

/// float32 means of a few vectors of length 1.
const TOLERANCE: f32 = 1e-6;

const DIM: usize = 6;

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

/// Sorted vectors, as the programs order groups differently.
fn sorted(mut rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    rows
}

fn compare(file: &str, unit_length: bool) {
    let path = test_backend::crate_folder().join("tests/token_pooling").join(file);
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 18);
    let mut fewer = 0;
    for (place, case) in cases.iter().enumerate() {
        let pooling = TokenPooling { unit_length, ..TokenPooling::new(case["factor"].as_f64().unwrap()).unwrap() };
        let given = rows(&case["rows"]);
        let found = pooling.pool(&given.concat(), DIM);
        let found: Vec<Vec<f32>> = found.chunks(DIM).map(<[f32]>::to_vec).collect();
        let expected = rows(&case["pooled"]);
        assert_eq!(found.len(), expected.len(), "{file}, case {place}");
        assert_eq!(found[0], given[0], "the first token is kept");
        fewer += usize::from(found.len() < given.len());
        for (found, expected) in sorted(found).iter().zip(sorted(expected)) {
            let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < TOLERANCE);
            assert!(near, "{file}, case {place}: {found:?} {expected:?}");
        }
    }
    assert_eq!(fewer, 12, "documents of three tokens and more");
}

#[test]
fn pooling_is_that_of_pylate() {
    compare("pylate.json", false);
}

#[test]
fn with_vectors_of_length_one_pooling_is_that_of_sentence_transformers() {
    compare("sentence_transformers.json", true);
}

#[test]
fn a_factor_of_one_changes_nothing_and_less_is_refused() {
    let rows = [1.0, 0.0, 0.6, 0.8, 0.8, 0.6, 0.0, 1.0];
    assert_eq!(TokenPooling::new(1.0).unwrap().pool(&rows, 2), rows);
    assert_eq!(TokenPooling::new(3.0).unwrap().pool(&rows[..2], 2), rows[..2], "one token");
    assert!(TokenPooling::new(2.0).unwrap().pool(&[], 2).is_empty());
    for factor in [0.5, -1.0, f64::NAN, f64::INFINITY] {
        let error = TokenPooling::new(factor).unwrap_err().to_string();
        assert!(error.contains("pool_factor") && error.contains("1 or more"), "{error}");
    }
    // Equal vectors are one group; PyLate keeps some of them, depending on rounding. MaxSim is the same.
    let equal = [0.6f32, 0.8].repeat(7);
    assert_eq!(TokenPooling::new(2.0).unwrap().pool(&equal, 2).len(), 2 * 2);
    // Opposite vectors have no mean direction.
    let opposite = [0.0, 1.0, 1.0, 0.0, -1.0, 0.0];
    let pooled = TokenPooling::new(2.0).unwrap().pool(&opposite, 2);
    assert_eq!(pooled, [0.0, 1.0, 0.0, 0.0]);
}
