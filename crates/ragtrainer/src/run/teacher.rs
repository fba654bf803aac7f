//! From options to a teacher and the cache of its scores.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colbert_config::Options;
use colbert_data::{ScoreCache, ScoreExchange, Teacher, Teaching};
use colbert_kernels::KernelAutodiffBackend;
use colbert_model::Pretrained;
use colbert_model::sentence::CrossEncoder;
use colbert_train::mining::{ColbertTeacher, CrossEncoderTeacher, SharedScores};

use crate::backend::Job;
use crate::error::Error;
use crate::run::sharing::Sharing;
use crate::source::{model_folder, public_name};

/// A teacher, the scores that it gave before, and the processes that share its work. No cache where there is no folder
/// for one, and in processes other than the first, whose cache counts.
#[derive(Debug)]
pub(crate) struct SharedTeacher {
    teacher: Arc<dyn Teacher>,
    cache: Option<ScoreCache>,
    scores: Option<SharedScores>,
}

impl SharedTeacher {
    pub(crate) fn teaching(&self) -> Teaching<'_> {
        let exchange = self.scores.as_ref().map(|scores| scores as &dyn ScoreExchange);
        Teaching { teacher: &*self.teacher, cache: self.cache.as_ref(), exchange }
    }
}

/// Reads the teacher that the options name, if they name one, and opens its cache.
///
/// # Errors
/// A directory that is neither a cross-encoder nor a trained ColBERT, or a cache that cannot be used.
pub(crate) fn teacher<E>(options: &Options, sharing: Sharing<'_, E>) -> Result<Option<SharedTeacher>, Error> {
    let negatives = &options.negatives;
    let Some(name) = &negatives.teacher else { return Ok(None) };
    let processes = sharing.processes;
    let teacher = sharing.backend(&options.backend)?.run(ReadTeacher { name })?;
    let folder = negatives.teacher_cache.clone().or_else(default_folder);
    let cache = match &folder {
        _ if !processes.is_first() => None,
        Some(folder) => Some(ScoreCache::open(folder, &teacher.fingerprint())?),
        None => {
            tracing::warn!("there is no folder of caches: the teacher's scores are not kept (negatives.teacher_cache)");
            None
        }
    };
    let scores = (processes.size() > 1).then(|| SharedScores::new(Arc::clone(processes)));
    Ok(Some(SharedTeacher { teacher, cache, scores }))
}

/// The folder of caches that the system gives a user, by the variables that name it.
fn default_folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA"));
    let caches = caches.or_else(|| set("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("ragtrainer").join("scores"))
}

struct ReadTeacher<'a> {
    name: &'a Path,
}

impl Job for ReadTeacher<'_> {
    type Output = Result<Arc<dyn Teacher>, Error>;

    fn run<B: KernelAutodiffBackend>(self, device: &B::Device) -> Self::Output {
        let directory = model_folder(self.name)?;
        if CrossEncoder::<B::InnerBackend>::is_one(&directory)? {
            let model = CrossEncoder::<B::InnerBackend>::read(&directory, device)?;
            return Ok(Arc::new(CrossEncoderTeacher::new(model, device)));
        }
        let pretrained = Pretrained::read(&directory)?;
        let Some(settings) = pretrained.declared_settings() else { return Err(Error::NoTeacher { path: directory }) };
        let tokenizer = pretrained.tokenizer(&settings)?;
        let (model, loaded) = pretrained.model::<B::InnerBackend>(&settings, None, 0, device)?;
        if !loaded.initialised.is_empty() {
            return Err(Error::NoTeacher { path: directory });
        }
        let name = public_name(&directory.to_string_lossy());
        let fingerprint = pretrained.content_hash(&format!("colbert, {settings:?}"));
        Ok(Arc::new(ColbertTeacher::new(model, tokenizer, &name, fingerprint, device)))
    }
}
