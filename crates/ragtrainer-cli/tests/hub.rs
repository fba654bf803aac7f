//! Models by name, against a small server on loopback that speaks the hub's protocol.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ragtrainer::Error;
use ragtrainer::hub::{Hub, HubEvent};

use crate::program::{pairs_file, ragtrainer_with};
use crate::support::{folder, tiny_model};
use server::{COMMIT, Mood, Server, TOKEN, etag_of, tiny_files};

/// Every file, below a folder, by its path from there.
fn files_below(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() { open.push(path) } else { all.push(name) }
        }
    }
    all.sort();
    all
}

fn get(hub: &Hub, name: &str) -> Result<PathBuf, Box<Error>> {
    hub.model(name, &mut |_| {}).map_err(Box::new)
}

fn weights() -> Vec<u8> {
    fs::read(tiny_model().join("model.safetensors")).unwrap()
}

#[test]
fn a_model_is_downloaded_once_into_the_usual_cache() {
    let (here, server) = (folder(), Server::start(Mood::Friendly));
    let hub = server.hub(here.path());
    let mut told = BTreeMap::new();
    let path = hub
        .model("org/tiny", &mut |event| {
            if let HubEvent::Downloading { file, done, total } = event {
                told.insert(file.to_owned(), (done, total));
            }
        })
        .unwrap();
    let repository = here.path().join("models--org--tiny");
    assert_eq!(path, repository.join("snapshots").join(COMMIT));
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let content = fs::read(tiny_model().join(file)).unwrap();
        assert_eq!(fs::read(path.join(file)).unwrap(), content, "{file}");
        let etag = etag_of(file, &content);
        assert_eq!(fs::read_link(path.join(file)).unwrap(), Path::new("../../blobs").join(&etag), "{file}");
        assert!(repository.join("blobs").join(etag).is_file());
        assert_eq!(told[file], (content.len() as u64, Some(content.len() as u64)), "{file}");
    }
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(files_below(here.path()).iter().all(|file| !file.contains("incomplete") && !file.contains("partial")));

    let asked = || server.seen("GET", "resolve").len() + server.seen("HEAD", "").len();
    let before = asked();
    assert_eq!(get(&hub, "org/tiny").unwrap(), path);
    assert_eq!(get(&hub, "org/tiny@v1").unwrap(), path, "another name of the same commit");
    assert_eq!(get(&hub, &format!("org/tiny@{COMMIT}")).unwrap(), path);
    assert_eq!(asked(), before, "nothing is asked for twice");
}

#[test]
fn without_the_hub_the_cache_is_used() {
    let (here, server) = (folder(), Server::start(Mood::Friendly));
    let hub = server.hub(here.path());
    let path = get(&hub, "org/tiny").unwrap();
    let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..hub };
    assert_eq!(get(&offline, "org/tiny").unwrap(), path);
    assert_eq!(get(&offline, &format!("org/tiny@{COMMIT}")).unwrap(), path);
    for name in ["org/other", "org/tiny@v1"] {
        let error = get(&offline, name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("HF_HUB_OFFLINE"), "{error}");
    }
    // A hub that cannot be reached is no reason to fail where the model is here, and that is reported.
    let unreachable = Hub { offline: false, ..offline.clone() };
    let mut told = Vec::new();
    let again = unreachable.model("org/tiny", &mut |event| told.push(format!("{event:?}"))).unwrap();
    assert_eq!(again, path);
    assert!(told.len() == 1 && told[0].contains("UsingCache") && told[0].contains("127.0.0.1:1"), "{told:?}");
    let error = get(&unreachable, "org/other").unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("5 times") && error.contains("HF_HUB_OFFLINE"), "{error}");
    // Another program may have wanted the configuration alone.
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let error = get(&offline, "org/tiny").unwrap_err().to_string();
    assert!(error.contains("only a part"), "{error}");
    assert!(matches!(*get(&unreachable, "org/tiny").unwrap_err(), Error::HubUnreachable { .. }));
}

#[test]
fn a_branch_that_moved_is_followed_and_only_what_changed_is_downloaded() {
    let (here, server) = (folder(), Server::start(Mood::Friendly));
    let hub = server.hub(here.path());
    let old = get(&hub, "org/tiny").unwrap();
    let next = "89abcdef0123456789abcdef0123456789abcdef";
    let mut config = fs::read(tiny_model().join("config.json")).unwrap();
    config.push(b'\n');
    server.push(next, "config.json", &config);
    let before = server.seen("GET", "resolve").len();
    let new = get(&hub, "org/tiny").unwrap();
    assert!(new.ends_with(next));
    assert_eq!(server.seen("GET", "resolve").len(), before + 1, "only config.json");
    assert_eq!(fs::read(new.join("config.json")).unwrap(), config);
    assert_ne!(fs::read(old.join("config.json")).unwrap(), config, "the old commit stays");
    assert_eq!(fs::read(new.join("model.safetensors")).unwrap(), weights());
    let offline = Hub { offline: true, ..hub };
    assert_eq!(get(&offline, "org/tiny").unwrap(), new);
    assert_eq!(get(&offline, &format!("org/tiny@{COMMIT}")).unwrap(), old);
}

#[test]
fn a_download_that_breaks_off_continues_where_it_broke() {
    let (here, server) = (folder(), Server::start(Mood::Drops));
    let path = get(&server.hub(here.path()), "org/tiny").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = server.seen("GET", "localhost").into_iter().map(|request| request.range).collect();
    let mut expected = vec![None];
    let mut have = 0;
    for _ in 0..4 {
        have += (weights().len() - have) / 2;
        expected.push(Some(format!("bytes={have}-")));
    }
    assert_eq!(ranges, expected);
}

/// The size that a download itself announces tells that it broke off.
#[test]
fn a_size_that_is_announced_late_counts() {
    let (here, server) = (folder(), Server::start(Mood::SaysSizeLate));
    let path = get(&server.hub(here.path()), "org/tiny").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = server.seen("GET", "localhost").into_iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some(format!("bytes={}-", weights().len() / 2))]);
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole_again() {
    for mood in [Mood::IgnoresRanges, Mood::WrongRange] {
        let (here, server) = (folder(), Server::start(mood));
        let path = get(&server.hub(here.path()), "org/tiny").unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights(), "{mood:?}");
    }
}

#[test]
fn a_rest_of_another_time_is_thrown_away() {
    for (left, requests) in [(vec![7; 1000], 2), (vec![7; weights().len()], 1), (vec![7; weights().len() + 1], 1)] {
        let (here, server) = (folder(), Server::start(Mood::Friendly));
        let blobs = here.path().join("models--org--tiny/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let etag = etag_of("model.safetensors", &weights());
        fs::write(blobs.join(format!("{etag}.incomplete")), &left).unwrap();
        let path = get(&server.hub(here.path()), "org/tiny").unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights(), "{}", left.len());
        let asked = server.seen("GET", "model.safetensors").into_iter().filter(|r| r.path.contains("/resolved/"));
        assert_eq!(asked.count(), requests, "{}", left.len());
    }
}

#[test]
fn a_server_that_stumbles_is_asked_again() {
    let (here, server) = (folder(), Server::start(Mood::StumblesTwice));
    assert!(get(&server.hub(here.path()), "org/tiny").unwrap().join("config.json").exists());
}

#[test]
fn what_cannot_be_had_is_told_and_leaves_nothing_unfinished() {
    for (mood, name, token, parts) in [
        (Mood::Friendly, "org/nothing", None, vec!["org/nothing", "404", "no such model"]),
        (Mood::Friendly, "org/tiny@v9", None, vec!["org/tiny@v9", "404", "not this revision"]),
        (Mood::Terse, "org/tiny", None, vec!["404", "no such model", "no folder of that name"]),
        (Mood::Forgetful, "org/tiny", None, vec!["org/tiny/config.json", "404"]),
        (Mood::Private, "org/tiny", None, vec!["401", "HF_TOKEN", "no folder of that name"]),
        (Mood::Private, "org/tiny", Some("other"), vec!["401", "this token"]),
        (Mood::Gated, "org/tiny", None, vec!["403", "gated", "HF_TOKEN", "/org/tiny"]),
        (Mood::Gated, "org/tiny", Some("other"), vec!["403", "gated", "this token"]),
        (Mood::Broken, "org/tiny", None, vec!["HTTP 500", "5 times", "HF_HUB_OFFLINE"]),
        (Mood::LiesOfWeights, "org/tiny", None, vec!["model.safetensors", "checksum", "aaaa"]),
        (Mood::LiesOfConfig, "org/tiny", None, vec!["config.json", "checksum", "aaaa"]),
        (Mood::TalksTooMuch, "org/tiny", None, vec!["model.safetensors", "checksum"]),
        (Mood::DropsAlways, "org/tiny", None, vec!["model.safetensors", "5 times", "after 0 bytes"]),
        (Mood::Endless, "org/tiny", None, vec!["config.json", "more than 67 MB", "without an announced size"]),
        (Mood::Enormous, "org/tiny", None, vec!["config.json", "are announced, expected at most 537 MB"]),
    ] {
        let (here, server) = (folder(), Server::start(mood));
        let hub = Hub { token: token.map(str::to_owned), ..server.hub(here.path()) };
        let error = get(&hub, name).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{mood:?}: {error}");
        let left = files_below(here.path());
        let whole = |file: &&String| !file.ends_with(".lock") && !file.ends_with(".incomplete");
        for file in left.iter().filter(whole) {
            let content = fs::read(here.path().join(file)).unwrap();
            let known = tiny_files().into_values().any(|whole| whole == content);
            assert!(known && !file.contains("refs") && !file.ends_with(".safetensors"), "{mood:?}: {file}");
        }
        let wrong = [Mood::LiesOfWeights, Mood::LiesOfConfig, Mood::TalksTooMuch, Mood::Endless, Mood::Enormous];
        if wrong.contains(&mood) {
            assert!(left.iter().all(|file| !file.ends_with(".incomplete")), "{mood:?}: {left:?}");
        }
    }
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (here, server) = (folder(), Server::start(Mood::Gated));
    let hub = Hub { token: Some(TOKEN.into()), ..server.hub(here.path()) };
    assert!(get(&hub, "org/tiny").unwrap().join("model.safetensors").exists());
    let bearer = format!("Bearer {TOKEN}");
    let own = [server.seen("HEAD", "127.0.0.1"), server.seen("GET", "127.0.0.1")].concat();
    assert!(own.len() > 3 && own.iter().all(|request| request.authorization.as_ref() == Some(&bearer)), "{own:?}");
    let elsewhere = server.seen("GET", "localhost");
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|request| request.authorization.is_none()), "{elsewhere:?}");
}

#[test]
fn sharded_and_pickled_weights_and_modules_are_downloaded() {
    let mut files = tiny_files();
    let whole = files.remove("model.safetensors").unwrap();
    let index = serde_json::json!({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}});
    for (name, content) in [
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("part-1.safetensors", whole.clone()),
        ("part-2.safetensors", whole),
        ("modules.json", b"[]".to_vec()),
        ("1_Dense/config.json", b"{}".to_vec()),
        ("1_Dense/pytorch_model.bin", b"dense".to_vec()),
        ("pytorch_model.bin", b"twice".to_vec()),
        ("onnx/model.onnx", b"unused".to_vec()),
        ("part-3.safetensors", b"unused".to_vec()),
    ] {
        files.insert(name.to_owned(), content);
    }
    let (here, server) = (folder(), Server::with_files(Mood::Friendly, files));
    let path = get(&server.hub(here.path()), "org/tiny").unwrap();
    let mut expected = vec![
        "1_Dense/config.json",
        "1_Dense/pytorch_model.bin",
        "config.json",
        "model.safetensors.index.json",
        "modules.json",
        "part-1.safetensors",
        "part-2.safetensors",
        "tokenizer.json",
    ];
    for optional in ["special_tokens_map.json", "tokenizer_config.json", "vocab.txt"] {
        if tiny_model().join(optional).exists() {
            expected.push(optional);
        }
    }
    expected.sort_unstable();
    assert_eq!(files_below(&path), expected);
    assert_eq!(fs::read(path.join("1_Dense/pytorch_model.bin")).unwrap(), b"dense", "its link leads up twice");
}

#[test]
fn two_programs_at_once_download_once() {
    let (here, server) = (folder(), Server::start(Mood::Friendly));
    let hub = server.hub(here.path());
    let found: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| get(&hub, "org/tiny").unwrap())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(found.iter().all(|path| *path == found[0]));
    assert_eq!(fs::read(found[0].join("model.safetensors")).unwrap(), weights());
    assert_eq!(server.seen("GET", "localhost").len(), 1);
}

#[test]
fn the_command_line_takes_a_name_and_the_environment() {
    let (here, server) = (folder(), Server::start(Mood::Gated));
    fs::write(here.path().join("texts.jsonl"), "\"a fen is wet\"\n\"a tor is rocky\"\n").unwrap();
    let arguments = ["rerank", "--model", "org/tiny@v1", "--documents", "texts.jsonl", "--query", "fen"];
    let cache = here.path().join("cache");
    let environment = [
        ("HF_HUB_CACHE", cache.to_str().unwrap()),
        ("HF_ENDPOINT", server.endpoint.as_str()),
        ("HF_TOKEN", TOKEN),
        ("HF_HUB_OFFLINE", "0"),
    ];
    let ran = ragtrainer_with(here.path(), &arguments, &environment);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    assert_eq!(ran.output.lines().filter(|line| line.contains("a tor is rocky")).count(), 1, "{}", ran.output);
    assert!(ran.errors.contains("downloading model.safetensors of org/tiny@v1"), "{}", ran.errors);
    assert!(cache.join("models--org--tiny/refs/v1").exists());
    let offline = ragtrainer_with(here.path(), &arguments, &[("HF_HUB_OFFLINE", "1"), environment[0]]);
    assert_eq!((offline.output, offline.errors.as_str()), (ran.output.clone(), ""));
    let unreachable = [environment[0], ("HF_ENDPOINT", "http://127.0.0.1:1"), environment[3]];
    let unreachable = ragtrainer_with(here.path(), &arguments, &unreachable);
    assert_eq!(unreachable.output, ran.output);
    assert!(
        unreachable.errors.contains("warning") && unreachable.errors.contains("127.0.0.1:1"),
        "{}",
        unreachable.errors
    );
    // A folder of that name always wins.
    fs::create_dir_all(here.path().join("org/tiny@v1")).unwrap();
    let local = ragtrainer_with(here.path(), &arguments, &environment);
    assert_eq!(local.code, Some(1));
    assert!(local.errors.contains("config.json"), "{}", local.errors);
}

#[test]
fn training_and_mining_take_names_and_say_what_they_started_from() {
    let (here, server) = (folder(), Server::start(Mood::Friendly));
    pairs_file(here.path());
    let mut arguments = vec!["train", "--pretrained-model-name", "org/tiny", "--train-data", "pairs.jsonl"];
    arguments.extend(["--output", "run", "--dim", "16", "--doc-maxlen", "32", "--batch-size", "4", "--maxsteps", "1"]);
    arguments.extend(["--num-new-negatives", "1", "--hard-negative-minimum-rank", "0"]);
    arguments.extend(["--miner", "dense", "--miner-model", "org/tiny@v1"]);
    let cache = here.path().join("cache");
    let environment =
        [("HF_HUB_CACHE", cache.to_str().unwrap()), ("HF_ENDPOINT", server.endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let ran = ragtrainer_with(here.path(), &arguments, &environment);
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let card = fs::read_to_string(here.path().join("run/best/README.md")).unwrap();
    assert!(card.contains("`org/tiny`") && card.contains("\nbase_model: \"org/tiny\"\n"), "{card}");
    assert!(ran.output.contains("mined by dense") && ran.output.contains("org/tiny"), "{}", ran.output);
    assert_eq!(server.seen("GET", "/api/").len(), 2, "each name is asked for once");
}
