//! A folder of documents whose writer is killed at any moment, while others read it.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ragtrainer::search::EncodedSource;
use ragtrainer::{DocumentFolder, Error};

use crate::program::ragtrainer;
use crate::support::{folder, pretrained, tiny_model};

/// Documents that every writer adds.
const NEW: usize = 300;

fn texts(file: &Path, first: usize) {
    let line = |i: usize| {
        let text = format!("the people of town {i} made {} of {} kinds", ["rope", "salt", "bells"][i % 3], i % 11);
        serde_json::json!({"_id": format!("d{}", first + i), "text": text}).to_string() + "\n"
    };
    fs::write(file, (0..NEW).map(line).collect::<String>()).unwrap();
}

fn start(here: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragtrainer"));
    command.args(arguments).current_dir(here).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn encode(more: &[String]) -> Vec<String> {
    let model = tiny_model().to_str().unwrap().to_owned();
    let first = ["encode", "--model", &model, "--folder", "kept"].map(str::to_owned);
    [&first[..], more].concat()
}

/// Reads all of a folder: ids, texts and vectors belong together whatever moment it is.
fn read_all(path: &Path) -> usize {
    let kept = DocumentFolder::open(path).unwrap();
    let mut buffer = Vec::new();
    let block = kept.block(0..kept.places(), &mut buffer).unwrap();
    assert_eq!(block.places.len(), kept.passages());
    for place in block.places.iter().step_by(37) {
        let passage = kept.passage(*place).unwrap();
        assert!(passage.text.starts_with("the people of town"), "{passage:?}");
        assert!(kept.contains(&passage.id.unwrap()).unwrap());
    }
    kept.len()
}

/// What is added is there as a whole or not at all, and so is what is deleted, whenever SIGKILL comes; and a reader
/// never meets anything else.
#[test]
fn a_folder_whose_writers_are_killed_holds_what_it_held_before_or_after() {
    let here = folder();
    let path = here.path().join("kept");
    let add = |first: usize| {
        texts(&here.path().join("new.jsonl"), first);
        encode(&["--input".to_owned(), "new.jsonl".to_owned()])
    };
    let model = tiny_model();
    let began = Instant::now();
    let words = add(0);
    let ran = ragtrainer(here.path(), &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let whole = began.elapsed();

    let (ended, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                read_all(&path);
                reads.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut finished = 0;
        for (round, share) in [0.97, 0.6, 1.02, 0.85, 0.93, 0.99].into_iter().enumerate() {
            let before = read_all(&path);
            let is_deletion = round % 2 == 1;
            let (arguments, after) = if is_deletion {
                // More than half: the folder is made compact.
                let ids = DocumentFolder::open(&path).unwrap().ids().unwrap();
                let gone = &ids[..ids.len() * 2 / 3];
                let words: Vec<String> = gone.iter().flat_map(|id| ["--delete".to_owned(), id.clone()]).collect();
                (encode(&words), before - gone.len())
            } else {
                (add(1000 * (round + 1)), before + NEW)
            };
            let mut writer = start(here.path(), &arguments);
            // A deletion takes little but the loading of the model.
            thread::sleep(if is_deletion { whole.mul_f64(0.1 + 0.2 * share) } else { whole.mul_f64(share) });
            writer.kill().unwrap();
            writer.wait().unwrap();
            let now = read_all(&path);
            assert!(now == before || now == after, "round {round}: {before} or {after} documents, not {now}");
            finished += usize::from(now == after);
        }
        ended.store(true, Ordering::Relaxed);
        assert!(finished <= 6);
    });
    assert!(reads.load(Ordering::Relaxed) > 10, "the reader read beside the writers");

    // The next writer goes on as if nothing had been.
    let model = pretrained(model);
    let mut kept = DocumentFolder::open(&path).unwrap();
    let before = kept.len();
    kept.add(&model, &["the people of town Garth made salt"], &mut |_| {}).unwrap();
    assert_eq!(read_all(&path), before + 1);
    assert!(matches!(
        kept.add(&model, &[(Some("0".to_owned()), " ".to_owned())], &mut |_| {}),
        Err(Error::EmptyText { .. })
    ));
    let hits = model.search("what did the people of Garth make", &DocumentFolder::open(&path).unwrap(), 5).unwrap();
    assert_eq!(hits.len(), 5.min(before + 1));
}
