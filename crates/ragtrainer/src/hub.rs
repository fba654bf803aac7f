//! Models by their names on the Hugging Face hub, kept in the cache that Hugging Face's own programs use.
//!
//! `org/name` or `org/name@revision`; a directory of that name always wins. Read from the environment: `HF_ENDPOINT`,
//! `HF_TOKEN` (or the token file: `HF_TOKEN_PATH`, else `token` in `HF_HOME`), `HF_HUB_CACHE`, `HF_HOME`,
//! `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `SSL_CERT_FILE`, and the usual proxy variables.

mod cache;
mod client;
mod transport;
mod wanted;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use cache::{Cache, Snapshot};
use client::Client;
use wanted::{WantedFiles, parts_of};

/// Where models are looked for, and where they are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Hub {
    /// Address of the hub.
    pub endpoint: String,
    /// Sent to the hub, and to no other host.
    pub token: Option<String>,
    /// Folder of the cache, in the layout of `huggingface_hub`.
    pub cache: PathBuf,
    /// Use what is in the cache and ask nobody.
    pub offline: bool,
}

/// An event while a model is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// A part of a file has arrived.
    Downloading {
        /// The file, by its path in the model.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all, if the hub says.
        total: Option<u64>,
    },
    /// The hub cannot be reached, and what was downloaded before is used.
    UsingCache {
        /// The attempt, and the answer.
        problem: &'a str,
        /// The cached model.
        folder: &'a Path,
    },
}

impl std::fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        let Self { endpoint, cache, offline, .. } = self;
        let mut all = f.debug_struct("Hub");
        all.field("endpoint", endpoint).field("token", &token).field("cache", cache).field("offline", offline).finish()
    }
}

impl Hub {
    /// The hub that the environment names.
    ///
    /// # Errors
    /// There is no home folder and no variable that says where the cache is.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let truth = |name: &str| {
            set(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
        };
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("huggingface"))
        });
        let Some(cache) = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("hub"))) else {
            let hint = "there is no home folder; say where downloaded models are kept";
            return Err(Error::NotSet { option: "HF_HUB_CACHE", hint });
        };
        let file = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
        // A token file is there only if somebody logged in.
        let kept = || std::fs::read_to_string(file?).ok().map(|token| token.trim().to_owned());
        Ok(Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            token: set("HF_TOKEN").or_else(kept).filter(|token| !token.is_empty()),
            cache,
            offline: truth("HF_HUB_OFFLINE") || truth("TRANSFORMERS_OFFLINE"),
        })
    }

    /// The directory of a model in the cache, downloading what is missing: configuration, tokenizer, projection, and
    /// the weights in one of their formats.
    ///
    /// # Errors
    /// There is no such model or revision, it may not be read with this token, the hub cannot be reached and the model
    /// is not in the cache, or what arrives is not what was announced. Nothing unfinished gets a final name.
    pub fn model(&self, name: &str, tell: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf, Error> {
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        let cache = Cache::new(&self.cache, repository);
        let kept = cache.snapshot(revision);
        if self.offline {
            let problem = match kept {
                Snapshot::Whole(folder) => return Ok(folder),
                Snapshot::Part(folder) => format!("only a part of it is in the cache: {}", folder.display()),
                Snapshot::None => format!("no folder of that name, and not in the cache {}", self.cache.display()),
            };
            let advice = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to download it, or give the path of a folder";
            return Err(Error::Hub { name: name.to_owned(), problem, advice });
        }
        let client = Client::new(&self.endpoint, self.token.as_deref())?;
        let listing = match (client.listing(repository, revision, &kept), kept) {
            (Ok(listing), _) => listing,
            (Err(error @ Error::HubUnreachable { .. }), Snapshot::Whole(folder)) => {
                let problem = error.to_string();
                tracing::warn!("{problem}; using what is in the cache: {}", folder.display());
                tell(HubEvent::UsingCache { problem: &problem, folder: &folder });
                return Ok(folder);
            }
            (Err(error), _) => return Err(error),
        };
        let wanted = WantedFiles::of(&listing.files).map_err(|missing| Error::Hub {
            name: name.to_owned(),
            problem: format!("it has no {missing}"),
            advice: "only models with config.json, tokenizer.json, and safetensors or pytorch_model.bin can be used",
        })?;
        let mut fetch = |file: &str| client.fetch(repository, &listing.commit, file, &cache, tell);
        for file in &wanted.files {
            fetch(file)?;
        }
        for index in &wanted.indices {
            fetch(index)?;
            let path = cache.place(&listing.commit, index);
            for part in parts_of(&path, index, &listing.files)? {
                fetch(&part)?;
            }
        }
        cache.finish(revision, &listing.commit)
    }
}

/// The directory that a name stands for: a local one if there is one of that name, else a model on the hub, downloaded
/// as the environment says. What was found is remembered as long as the program runs.
///
/// # Errors
/// As [`Hub::model`]. A name that can be no model's is taken for a path, whether there is one or not.
pub fn model_directory(name: &Path, tell: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf, Error> {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let Some(text) = name.to_str().filter(|text| !name.exists() && is_hub_name(text)) else {
        return Ok(name.to_owned());
    };
    // A panic elsewhere leaves the map whole.
    let known = FOUND.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned();
    if let Some(folder) = known {
        return Ok(folder);
    }
    let folder = Hub::from_env()?.model(text, tell)?;
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), folder.clone());
    Ok(folder)
}

/// `name` or `org/name`, with a revision or not.
fn is_hub_name(name: &str) -> bool {
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let word = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        plain && !part.is_empty() && !part.starts_with(['.', '-']) && !part.contains("..")
    };
    let parts: Vec<&str> = repository.split('/').collect();
    parts.len() <= 2 && parts.into_iter().all(word) && revision.split('/').all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_and_paths() {
        for name in ["bert-base-uncased", "colbert-ir/colbertv2.0", "org/name@v1.0", "org/name@refs/pr/3"] {
            assert!(is_hub_name(name), "{name}");
        }
        for name in ["", "./model", "/model", "a/b/c", "../x", "org/name@", "org/na me", "-x/y", "org//name", "x@../y"]
        {
            assert!(!is_hub_name(name), "{name}");
        }
    }

    #[test]
    fn the_environment_is_read_as_hugging_face_reads_it() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("token"), " from-file\n").unwrap();
        let home = here.path().to_str().unwrap();
        let of = |variables: &[(&str, &str)]| {
            let all: BTreeMap<_, _> = variables.iter().copied().collect();
            Hub::from_variables(|name| all.get(name).map(|value| (*value).to_owned())).unwrap()
        };
        let hub = of(&[("HF_HOME", home)]);
        assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://huggingface.co", false));
        assert_eq!((hub.token.as_deref(), hub.cache), (Some("from-file"), here.path().join("hub")));
        let hub = of(&[("HF_HOME", home), ("HF_TOKEN", "own\n"), ("HF_HUB_CACHE", "/x"), ("HF_ENDPOINT", "http://h")]);
        assert_eq!((hub.token.as_deref(), hub.cache.as_path()), (Some("own"), Path::new("/x")));
        assert_eq!(hub.endpoint, "http://h");
        assert!(!format!("{hub:?}").contains("own"), "{hub:?}");
        let hub = of(&[("XDG_CACHE_HOME", "/c"), ("HF_TOKEN_PATH", &format!("{home}/token"))]);
        assert_eq!((hub.token.as_deref(), hub.cache.as_path()), (Some("from-file"), Path::new("/c/huggingface/hub")));
        for (name, value, offline) in
            [("HF_HUB_OFFLINE", "1", true), ("TRANSFORMERS_OFFLINE", "yes", true), ("HF_HUB_OFFLINE", "0", false)]
        {
            assert_eq!(of(&[("HF_HOME", home), (name, value)]).offline, offline, "{name}={value}");
        }
    }
}
