//! A small server on loopback that speaks the protocol of the Hugging Face hub, with a second one as its content
//! network.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ragtrainer::hub::Hub;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::support::tiny_model;

/// The first commit of `org/tiny`.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The token that the server knows.
pub(super) const TOKEN: &str = "secret";

/// What the server does besides serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Friendly,
    /// Ends the connection in the middle of the weights, at the first four downloads that are not near the end.
    Drops,
    /// Ends it in the middle every time, after no byte at all.
    DropsAlways,
    /// Sends the whole file whatever is asked for.
    IgnoresRanges,
    /// Sends another part than is asked for.
    WrongRange,
    /// Answers 503 to the first two requests.
    StumblesTwice,
    /// Answers 500 to everything.
    Broken,
    /// Announces another SHA-256 of the weights than that of what it sends.
    LiesOfWeights,
    /// Announces another git name of `config.json`.
    LiesOfConfig,
    /// Sends more bytes than it announces.
    TalksTooMuch,
    /// Wants a token, and says nothing else.
    Private,
    /// Wants a token, and says that the model is gated.
    Gated,
    /// Lists files that it does not have.
    Forgetful,
    /// Says 404 without a word why.
    Terse,
    /// Announces no size before a download, and ends the first one of the weights early.
    SaysSizeLate,
    /// Announces no size at all, and never stops sending `config.json`.
    Endless,
    /// Announces more bytes of `config.json` than any disk has.
    Enormous,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// With host, so that the two servers can be told apart.
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) authorization: Option<String>,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// Files of each commit of `org/tiny`.
    commits: HashMap<String, BTreeMap<String, Vec<u8>>>,
    refs: HashMap<String, String>,
    cdn: u16,
    seen: Vec<Request>,
}

/// A hub with one model, `org/tiny`. Large files are redirected to the content network by an absolute address,
/// `tokenizer.json` within the hub by a relative one.
pub(super) struct Server {
    pub(super) endpoint: String,
    state: Arc<Mutex<State>>,
}

/// The files of the tiny model.
pub(super) fn tiny_files() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(tiny_model()).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

impl Server {
    pub(super) fn start(mood: Mood) -> Self {
        Self::with_files(mood, tiny_files())
    }

    pub(super) fn with_files(mood: Mood, files: BTreeMap<String, Vec<u8>>) -> Self {
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{}", port(&hub));
        let refs = ["main", "v1", COMMIT].into_iter().map(|name| (name.to_owned(), COMMIT.to_owned())).collect();
        let commits = HashMap::from([(COMMIT.to_owned(), files)]);
        let state = Arc::new(Mutex::new(State { mood, commits, refs, cdn: port(&cdn), seen: Vec::new() }));
        for listener in [hub, cdn] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, state) = (stream.unwrap(), state.clone());
                    std::thread::spawn(move || answer(stream, &state));
                }
            });
        }
        Self { endpoint, state }
    }

    /// What a program asks this server with.
    pub(super) fn hub(&self, cache: &Path) -> Hub {
        Hub { endpoint: self.endpoint.clone(), token: None, cache: cache.to_owned(), offline: false }
    }

    /// Moves `main` to a new commit, in which one file is another.
    pub(super) fn push(&self, commit: &str, file: &str, content: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let mut files = state.commits[&state.refs["main"]].clone();
        files.insert(file.to_owned(), content.to_owned());
        state.commits.insert(commit.to_owned(), files);
        state.refs.insert("main".to_owned(), commit.to_owned());
    }

    /// The requests with this method whose address contains `part`.
    pub(super) fn seen(&self, method: &str, part: &str) -> Vec<Request> {
        let state = self.state.lock().unwrap();
        let fits = |request: &&Request| request.method == method && request.path.contains(part);
        state.seen.iter().filter(fits).cloned().collect()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}

/// The checksum that the hub announces: SHA-256 of large files, git's name of others.
pub(super) fn etag_of(file: &str, content: &[u8]) -> String {
    if is_large(file) {
        return hexadecimal(&Sha256::digest(content));
    }
    hexadecimal(&Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect();
    let header = |name: &str| headers.get(name).cloned();
    let host = header("host").unwrap();
    let request = Request {
        path: format!("{host}{path}"),
        method,
        range: header("range"),
        authorization: header("authorization"),
    };
    let mut state = state.lock().unwrap();
    state.seen.push(request.clone());
    let (status, headers, body, sent) = state.answer(&request, &path);
    let (mood, is_head) = (state.mood, request.method == "HEAD");
    drop(state);
    let of_config = path.ends_with("/config.json");
    let length = match mood {
        Mood::SaysSizeLate if is_head => String::new(),
        Mood::Endless if path.contains("/resolve") => String::new(),
        Mood::Enormous if of_config => format!("content-length: {}\r\n", 1u64 << 60),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}{length}\r\n");
    let body = if is_head { &[] } else { &body[..sent.min(body.len())] };
    let mut written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    while mood == Mood::Endless && of_config && !is_head && written.is_ok() {
        written = stream.write_all(&[b' '; 1 << 16]);
    }
    // The other side may be gone already.
    drop(written);
}

/// Status, headers, body, and how many bytes of the body are really sent.
type Answer = (&'static str, String, Vec<u8>, usize);

impl State {
    fn answer(&self, request: &Request, path: &str) -> Answer {
        let plain = |status, code: &str| {
            let header = if code.is_empty() { String::new() } else { format!("x-error-code: {code}\r\n") };
            (status, header, Vec::new(), 0)
        };
        let on_cdn = request.path.contains(&format!(":{}/", self.cdn));
        let token = request.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
        match self.mood {
            Mood::Broken => return plain("500 Internal Server Error", ""),
            Mood::StumblesTwice if self.seen.len() <= 2 => return plain("503 Service Unavailable", ""),
            Mood::Private if !token && !on_cdn => return plain("401 Unauthorized", "RepoNotFound"),
            Mood::Gated if !token && !on_cdn => return plain("403 Forbidden", "GatedRepo"),
            Mood::Terse => return plain("404 Not Found", ""),
            _ => {}
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let Some((repository, revision)) = rest.split_once("/revision/") else {
                return plain("404 Not Found", "");
            };
            let revision = revision.replace("%2F", "/");
            let Some(commit) = self.refs.get(&revision).filter(|_| repository == "org/tiny") else {
                let code = if repository == "org/tiny" { "RevisionNotFound" } else { "RepoNotFound" };
                return plain("404 Not Found", code);
            };
            let siblings: Vec<_> =
                self.commits[commit].keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"sha": commit, "siblings": siblings}).to_string();
            return ("200 OK", "content-type: application/json\r\n".to_owned(), body.into_bytes(), usize::MAX);
        }
        let direct = path.strip_prefix("/org/tiny/resolve/");
        let place = direct.or_else(|| path.strip_prefix("/resolved/"));
        let found = place.and_then(|place| place.split_once('/'));
        let Some((commit, file)) = found.filter(|_| self.mood != Mood::Forgetful) else {
            return plain("404 Not Found", "EntryNotFound");
        };
        let Some(content) = self.commits.get(commit).and_then(|files| files.get(file)) else {
            return plain("404 Not Found", "EntryNotFound");
        };
        let lies = match self.mood {
            Mood::LiesOfWeights => is_large(file),
            Mood::LiesOfConfig => file == "config.json",
            _ => false,
        };
        let etag = etag_of(file, content);
        let etag = if lies { "a".repeat(etag.len()) } else { etag };
        if let (true, Some(place)) = (is_large(file), direct) {
            let cdn = self.cdn;
            let size = match self.mood {
                Mood::SaysSizeLate | Mood::Endless => String::new(),
                _ => format!("x-linked-size: {}\r\n", content.len()),
            };
            let headers = format!(
                "x-repo-commit: {commit}\r\nx-linked-etag: \"{etag}\"\r\n{size}location: \
                 http://localhost:{cdn}/resolved/{place}\r\n"
            );
            return ("302 Found", headers, Vec::new(), 0);
        }
        if let (true, Some(place)) = (file == "tokenizer.json", direct) {
            return ("307 Temporary Redirect", format!("location: /resolved/{place}\r\n"), Vec::new(), 0);
        }
        self.content(request, file, content, &etag)
    }

    fn content(&self, request: &Request, file: &str, content: &[u8], etag: &str) -> Answer {
        let large = is_large(file);
        let asked = request.range.as_deref().map_or(0, |range| range[6..range.len() - 1].parse::<usize>().unwrap());
        let start = match self.mood {
            Mood::IgnoresRanges => 0,
            Mood::WrongRange if asked > 0 => asked - 1,
            _ => asked,
        };
        if start > 0 && start >= content.len() {
            return ("416 Range Not Satisfiable", String::new(), Vec::new(), 0);
        }
        let mut rest = content[start..].to_vec();
        if self.mood == Mood::TalksTooMuch && request.method == "GET" && large {
            rest.extend([0; 100]);
        }
        let is_download = |request: &&Request| {
            request.method == "GET" && request.path.contains("/resolved/") && is_large(&request.path)
        };
        let downloads = self.seen.iter().filter(is_download).count();
        let sent = match self.mood {
            Mood::Drops if large && downloads <= 4 => rest.len() / 2,
            Mood::SaysSizeLate if large && downloads <= 1 => rest.len() / 2,
            Mood::IgnoresRanges | Mood::WrongRange if large && asked == 0 && downloads <= 1 => rest.len() / 2,
            Mood::DropsAlways if large => 0,
            _ => usize::MAX,
        };
        let range = format!("content-range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len());
        let (status, range) = if start > 0 { ("206 Partial Content", range.as_str()) } else { ("200 OK", "") };
        (status, format!("x-repo-commit: {COMMIT}\r\netag: W/\"{etag}\"\r\n{range}"), rest, sent)
    }
}
