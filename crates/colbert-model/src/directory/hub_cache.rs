//! Directories in the cache of Hugging Face's programs: `models--org--name/snapshots/<commit>`.

use std::path::Path;

/// Returns the name on the hub, `org/name`, of a model that lies in the hub's cache.
pub fn hub_name(directory: &Path) -> Option<String> {
    let snapshots = directory.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(repository.replacen("--", "/", 1))
}

/// Returns the last part of a directory's path.
pub(crate) fn folder_name(directory: &Path) -> String {
    directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cache_has_names_of_the_hub() {
        let of = |path: &str| hub_name(Path::new(path));
        assert_eq!(of("hub/models--intfloat--e5-base/snapshots/0a1b2c").as_deref(), Some("intfloat/e5-base"));
        assert_eq!(of("hub/models--gpt2/snapshots/0a1b2c").as_deref(), Some("gpt2"));
        assert_eq!(of("models/e5-base"), None);
        assert_eq!(of("snapshots/e5-base"), None);
    }
}
