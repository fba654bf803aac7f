//! The hub's protocol: what a revision holds, and its files with their checksums. Downloads that break off are resumed
//! where they broke.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use colbert_config::Bytes;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::HubEvent;
use super::cache::{Cache, Snapshot, failed};
use super::transport::{Method, Transport};
use crate::error::Error;

/// Times that a request is tried without any gain.
const TRIES: u32 = 5;

/// The same where there is something in the cache that can be used instead.
const TRIES_WITH_CACHE: u32 = 2;

/// Wait before the second try; each further one waits twice as long. Fuzzing does not wait.
const FIRST_WAIT: Duration = if cfg!(fuzzing) { Duration::ZERO } else { Duration::from_millis(200) };

/// Longest answer that can be a list of files, in bytes.
const LONGEST_LISTING: u64 = 64 << 20;

/// Longest file whose size no answer announces, in bytes. Without a bound a server that never ends would fill the disk.
const LONGEST_UNANNOUNCED: u64 = 64 << 20;

/// Longest file that is not weights, in bytes; such files are read into memory. The largest vocabularies take 40 MB.
const LONGEST_TEXT: u64 = 512 << 20;

#[derive(Debug)]
pub(super) struct Client {
    endpoint: String,
    transport: Transport,
    has_token: bool,
}

/// The files of a revision.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// Why a try failed.
enum Failure {
    /// Another try may help.
    Passing(String),
    /// It broke off, but more is here than before.
    Gained(String),
    Final(Box<Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(Box::new(error))
    }
}

/// The hub's announcement of a file.
struct Announced {
    etag: String,
    size: Option<u64>,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<&str>) -> Result<Self, Error> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let transport = Transport::new(&endpoint, token)?;
        Ok(Self { endpoint, transport, has_token: token.is_some() })
    }

    /// Commit and files of a revision. With something in the cache it is tried less often.
    pub(super) fn listing(&self, repository: &str, revision: &str, kept: &Snapshot) -> Result<Listing, Error> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let name = if revision == "main" { repository.to_owned() } else { format!("{repository}@{revision}") };
        let url = format!("{}/api/models/{repository}/revision/{}", self.endpoint, revision.replace('/', "%2F"));
        let tries = if matches!(kept, Snapshot::Whole(_)) { TRIES_WITH_CACHE } else { TRIES };
        let info: Info = tried(&name, &url, tries, || {
            let mut response = self.transport.send(&url, Method::Get(0)).map_err(passing)?;
            self.accepted(&name, repository, &response)?;
            let body = response.body_mut().with_config().limit(LONGEST_LISTING).read_to_string().map_err(passing)?;
            serde_json::from_str(&body)
                .map_err(|_| Failure::Passing("the answer is no description of a model".to_owned()))
        })?;
        // The commit becomes the name of a folder.
        if info.sha.is_empty() || !info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let problem = format!("{} names no commit of it", self.endpoint);
            return Err(Error::Hub { name, problem, advice: "check HF_ENDPOINT" });
        }
        Ok(Listing { commit: info.sha, files: info.siblings.into_iter().map(|sibling| sibling.rfilename).collect() })
    }

    /// Downloads a file of a commit into the cache, unless it is there.
    pub(super) fn fetch(
        &self,
        repository: &str,
        commit: &str,
        file: &str,
        cache: &Cache,
        tell: &mut dyn FnMut(HubEvent<'_>),
    ) -> Result<(), Error> {
        // What a commit holds never changes.
        if cache.place(commit, file).exists() {
            return Ok(());
        }
        let name = format!("{repository}/{file}");
        let url = format!("{}/{repository}/resolve/{commit}/{file}", self.endpoint);
        let announced = tried(&name, &url, TRIES, || self.announced(&name, repository, &url))?;
        // Held until the file is in its place.
        let _lock = cache.lock(&announced.etag)?;
        if !cache.blob(&announced.etag).exists() {
            let mut download = Download {
                client: self,
                name: &name,
                repository,
                url: &url,
                file,
                announced: &announced,
                partial: &cache.incomplete(&announced.etag),
                most: 0,
            };
            tried(&name, &url, TRIES, || download.go_on(tell))?;
            cache.keep(&announced.etag)?;
        }
        cache.link(commit, file, &announced.etag)
    }

    fn announced(&self, name: &str, repository: &str, url: &str) -> Result<Announced, Failure> {
        let response = self.transport.send(url, Method::Head).map_err(passing)?;
        if !response.status().is_redirection() {
            self.accepted(name, repository, &response)?;
        }
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        // It becomes the name of a file.
        if etag.is_empty() || !etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let problem = "the hub does not say which content it is (no etag)".to_owned();
            return Err(Failure::from(Error::Hub { name: name.to_owned(), problem, advice: "check HF_ENDPOINT" }));
        }
        // A redirect has a length of its own.
        let size = header(&response, "x-linked-size")
            .or_else(|| header(&response, "content-length").filter(|_| response.status().is_success()));
        Ok(Announced { etag, size: size.and_then(|size| size.parse().ok()) })
    }

    fn accepted(&self, name: &str, repository: &str, response: &Response<Body>) -> Result<(), Failure> {
        const TOKEN: &str = "set HF_TOKEN, or write the token into the file `token` in HF_HOME (~/.cache/huggingface)";
        let status = response.status().as_u16();
        let code = header(response, "x-error-code").unwrap_or_default();
        let refused = |problem: String, advice| {
            let problem = format!("{problem} (HTTP {status} from {})", self.endpoint);
            Err(Failure::from(Error::Hub { name: name.to_owned(), problem, advice }))
        };
        let nothing =
            || refused("there is no folder of that name, and no such model".to_owned(), "check the name (org/name)");
        match (status, code, self.has_token) {
            (200..300, ..) => Ok(()),
            (401 | 403, "GatedRepo", true) => refused(
                format!(
                    "the model is gated, and this token may not read it; accept its conditions on {}/{repository}",
                    self.endpoint
                ),
                "use a token of an account that did",
            ),
            (401 | 403, "GatedRepo", false) => refused(
                format!(
                    "the model is gated and needs a token; accept its conditions on {}/{repository}",
                    self.endpoint
                ),
                TOKEN,
            ),
            (401 | 403, _, true) => refused(
                "there is no folder of that name, and no such model that this token may read".to_owned(),
                "check the name (org/name), and that HF_TOKEN or the token file is of the right account",
            ),
            (401 | 403, ..) => refused(
                "there is no folder of that name, and no such model that can be read without a token".to_owned(),
                TOKEN,
            ),
            (404, "RevisionNotFound", _) => refused(
                "the model is there, but not this revision".to_owned(),
                "check the branch, tag or commit after @",
            ),
            (404, "EntryNotFound", _) => {
                refused("the hub listed this file and does not have it".to_owned(), "try again, or check HF_ENDPOINT")
            }
            (404, ..) => nothing(),
            (429 | 500.., ..) => Err(Failure::Passing(format!("HTTP {status}"))),
            _ => refused("the hub refuses".to_owned(), "check HF_ENDPOINT"),
        }
    }
}

/// A file on its way.
struct Download<'a> {
    client: &'a Client,
    name: &'a str,
    repository: &'a str,
    url: &'a str,
    file: &'a str,
    announced: &'a Announced,
    partial: &'a Path,
    /// The most bytes that were here after a try.
    most: u64,
}

impl Download<'_> {
    /// One try to get the rest, and the comparison with what was announced.
    fn go_on(&mut self, tell: &mut dyn FnMut(HubEvent<'_>)) -> Result<(), Failure> {
        let found = fs::metadata(self.partial).map_or(0, |metadata| metadata.len());
        let size = self.announced.size;
        self.bounded(size.unwrap_or(0))?;
        // What is longer than announced is not its beginning.
        let start = if size.is_some_and(|size| found > size) { 0 } else { found };
        if size.is_some_and(|size| start == size && size > 0) {
            return self.checked(true);
        }
        let response = self.client.transport.send(self.url, Method::Get(start)).map_err(passing)?;
        if response.status().as_u16() == 416 {
            // There is nothing behind what is here; the checksum says whether it is that file.
            return self.checked(true);
        }
        self.client.accepted(self.name, self.repository, &response)?;
        let range = header(&response, "content-range").and_then(|range| range.strip_prefix("bytes "));
        let answers = range.and_then(|range| range.split('-').next()).and_then(|first| first.parse().ok());
        let resumed = start > 0 && response.status().as_u16() == 206 && answers == Some(start);
        if start > 0 && !resumed && response.status().as_u16() == 206 {
            self.remove()?;
            return Err(Failure::Passing("the server sent another part than was asked for".to_owned()));
        }
        let mut to = OpenOptions::new();
        let to = if resumed { to.append(true) } else { to.write(true).create(true).truncate(true) };
        let mut to = to.open(self.partial).map_err(|source| self.failed("write", source))?;
        let mut done = if resumed { start } else { 0 };
        // Where HEAD gave no size, the answer itself may; without any, what arrives is bounded.
        let rest = header(&response, "content-length").and_then(|length| length.parse::<u64>().ok());
        let size = size.or_else(|| done.checked_add(rest?));
        self.bounded(size.unwrap_or(0))?;
        let mut from = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broke_off(done, &error.to_string())),
            };
            to.write_all(&buffer[..count]).map_err(|source| self.failed("write", source))?;
            done += count as u64;
            tell(HubEvent::Downloading { file: self.file, done, total: size });
            match size {
                Some(size) if done > size => break,
                None if done > LONGEST_UNANNOUNCED => {
                    self.remove()?;
                    let problem =
                        format!("more than {} arrived of a file without an announced size", Bytes(LONGEST_UNANNOUNCED));
                    return Err(self.refused(problem));
                }
                _ => {}
            }
        }
        to.sync_all().map_err(|source| self.failed("write", source))?;
        if size.is_some_and(|size| done < size) {
            return Err(self.broke_off(done, "the connection ended early"));
        }
        self.checked(resumed)
    }

    /// # Errors
    /// A file that is not weights is announced with more bytes than any such file has.
    fn bounded(&self, size: u64) -> Result<(), Failure> {
        if size <= LONGEST_TEXT || is_weights(self.file) {
            return Ok(());
        }
        let problem = format!("{} are announced, expected at most {}", Bytes(size), Bytes(LONGEST_TEXT));
        Err(self.refused(problem))
    }

    fn refused(&self, problem: String) -> Failure {
        let advice = "check HF_ENDPOINT and what lies between, or download the model with another program";
        Failure::from(Error::Hub { name: self.name.to_owned(), problem, advice })
    }

    fn broke_off(&mut self, done: u64, problem: &str) -> Failure {
        let problem = format!("{problem} after {done} bytes");
        if done > self.most {
            self.most = done;
            return Failure::Gained(problem);
        }
        Failure::Passing(problem)
    }

    /// Compares what arrived with what was announced; what differs is removed. If it was `resumed`, its beginning may
    /// have been of another time, and it is worth another try.
    fn checked(&self, resumed: bool) -> Result<(), Failure> {
        let etag = &self.announced.etag;
        let read = |source| self.failed("read", source);
        let bytes = fs::metadata(self.partial).map_err(read)?.len();
        let found = match etag.len() {
            64 => hash(Sha256::new(), self.partial).map_err(read)?,
            // Git's own name of a file that is not kept apart.
            40 => hash(Sha1::new().chain_update(format!("blob {bytes}\0")), self.partial).map_err(read)?,
            // Another kind of etag says nothing about the content.
            _ => etag.clone(),
        };
        if found == *etag && self.announced.size.is_none_or(|size| size == bytes) {
            return Ok(());
        }
        self.remove()?;
        let problem = format!("{bytes} bytes arrived whose checksum is {found}; announced was {etag}");
        if resumed {
            return Err(Failure::Passing(problem));
        }
        let advice = "nothing of it was kept; try again, or check HF_ENDPOINT and what lies between";
        Err(Failure::from(Error::Hub { name: self.name.to_owned(), problem, advice }))
    }

    fn remove(&self) -> Result<(), Failure> {
        fs::remove_file(self.partial).map_err(|source| self.failed("remove", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Failure {
        Failure::from(failed(action, self.partial)(source))
    }
}

/// Tries until it works, or another try would not help. Only tries without any gain are counted.
fn tried<T>(name: &str, url: &str, tries: u32, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Error> {
    let mut wait = FIRST_WAIT;
    let mut failures = 0;
    loop {
        let problem = match attempt() {
            Ok(found) => return Ok(found),
            Err(Failure::Final(error)) => return Err(*error),
            Err(Failure::Gained(problem)) => {
                (failures, wait) = (0, FIRST_WAIT);
                problem
            }
            Err(Failure::Passing(problem)) => {
                failures += 1;
                problem
            }
        };
        tracing::debug!("{url}: {problem}");
        if failures >= tries {
            return Err(Error::HubUnreachable { name: name.to_owned(), url: url.to_owned(), tries, problem });
        }
        sleep(wait);
        wait *= 2;
    }
}

fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}

fn passing(error: ureq::Error) -> Failure {
    Failure::Passing(error.to_string())
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Hexadecimal digest of what was hashed before and a file.
fn hash<D: Digest>(mut digest: D, path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&buffer[..count]),
        }
    }
}
