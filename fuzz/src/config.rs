//! Option files in three syntaxes, environment variables, and artifact.metadata.

use colbert_config::{ArtifactMetadata, OptionSources, resolve};

use super::scratch::{choice, with_scratch};

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((kind, content)) = choice(bytes, 5) else { return };
    with_scratch(
        "config",
        |_| {},
        |scratch| {
            let options = match kind {
                0..3 => {
                    let path = scratch.write(["options.toml", "options.yaml", "options.json"][kind], content);
                    OptionSources::new().file(path).and_then(OptionSources::build)
                }
                3 => {
                    let text = String::from_utf8_lossy(content);
                    let pairs = text.lines().filter_map(|line| line.split_once('='));
                    let pairs: Vec<_> =
                        pairs.map(|(name, value)| (format!("RAGTRAINER_{name}"), value.to_owned())).collect();
                    OptionSources::new().environment(pairs).build()
                }
                _ => {
                    let path = scratch.write("artifact.metadata", content);
                    if let Ok(metadata) = ArtifactMetadata::read(&path) {
                        let written = metadata.to_json_string().expect("it has a JSON form");
                        assert_eq!(ArtifactMetadata::from_json(&written, &path).expect("our own"), metadata);
                    }
                    return;
                }
            };
            if let Ok(options) = options
                && options.validate().is_ok()
            {
                for examples in [0, 1_000, usize::MAX] {
                    if let Ok(plan) = resolve(&options.train, examples) {
                        drop(plan.to_string());
                    }
                }
                let json = serde_json::to_string(&options).expect("options have a JSON form");
                let again = scratch.write("again.json", json.as_bytes());
                assert_eq!(OptionSources::new().file(again).and_then(OptionSources::build).expect("our own"), options);
            }
        },
    );
}
