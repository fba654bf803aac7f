//! Loads a model directory in a late-interaction stack written in Rust, and compares with its selfcheck.json.
//!
//!     replay STACK MODEL_DIR      STACK: pylate-rs, next-plaid (which needs ORT_DYLIB_PATH=libonnxruntime.so)
//!
//! Prints one line: the largest difference of a number of a token vector. Exit code 1 if it is more than 1e-5.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

const TOLERANCE: f32 = 1e-5;

/// Vectors of texts: `[texts][tokens][dim]`.
type Vectors = Vec<Vec<Vec<f32>>>;

fn with_pylate_rs(directory: &str, texts: &[String], is_query: bool) -> anyhow::Result<Vectors> {
    let mut model = pylate_rs::ColBERT::try_from(pylate_rs::ColBERT::from(directory))?;
    // One at a time: a call pads to its longest text.
    let alone = |text: &String| Ok(model.encode(std::slice::from_ref(text), is_query)?.squeeze(0)?.to_vec2::<f32>()?);
    texts.iter().map(alone).collect()
}

fn with_next_plaid(directory: &str, texts: &[String], is_query: bool) -> anyhow::Result<Vectors> {
    let model = next_plaid_onnx::Colbert::new(directory)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = if is_query { model.encode_queries(&texts)? } else { model.encode_documents(&texts, None)? };
    Ok(found.iter().map(|text| text.rows().into_iter().map(|row| row.to_vec()).collect()).collect())
}

/// Vectors that are recorded for a text, without those of tokens that are not scored if `scored`.
fn recorded(text: &Value, scored: bool) -> Option<Vec<Vec<f32>>> {
    let mut kept = Vec::new();
    for (vector, is_scored) in text["vectors"].as_array()?.iter().zip(text["scored"].as_array()?) {
        if !scored || is_scored.as_bool()? {
            kept.push(vector.as_array()?.iter().filter_map(|x| Some(x.as_f64()? as f32)).collect());
        }
    }
    Some(kept)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stack, directory] = &arguments[..] else { bail!("usage: replay STACK MODEL_DIR") };
    let check: Value = serde_json::from_str(&std::fs::read_to_string(format!("{directory}/selfcheck.json"))?)?;
    // pylate-rs leaves punctuation in documents.
    let (version, without_skipped, encode): (_, _, fn(&str, &[String], bool) -> anyhow::Result<Vectors>) =
        match stack.as_str() {
            "pylate-rs" => ("pylate-rs 1.0.3", false, with_pylate_rs),
            "next-plaid" => ("next-plaid-onnx 1.6.1", true, with_next_plaid),
            _ => bail!("{stack} is none of pylate-rs, next-plaid"),
        };
    let (mut worst, mut same) = (0f32, true);
    for side in ["queries", "documents"] {
        let texts = check[side].as_array().context("no texts")?;
        let words: Vec<String> = texts.iter().filter_map(|text| text["text"].as_str()).map(str::to_owned).collect();
        for (text, found) in texts.iter().zip(encode(directory, &words, side == "queries")?) {
            let expected = recorded(text, without_skipped && side == "documents").context("a text without vectors")?;
            same &= expected.len() == found.len();
            for (expected, found) in expected.iter().zip(&found) {
                worst = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            }
        }
    }
    let is_ok = same && worst <= TOLERANCE;
    let (tokens, verdict) = (if same { "as many" } else { "OTHER NUMBERS" }, if is_ok { "ok" } else { "DIFFERS" });
    println!("{version}: tokens {tokens}; token vectors {worst:.1e}; scores not compared: {verdict}");
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
