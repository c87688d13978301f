//! Configurations: a compiled one is sound; a refused one is told fault by fault, each with its place in the text, and
//! nothing of what was a secret is shown.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::Dice;
use ringway_fuzz::config::compile::{Sources, compile};

/// Stands in the environment and in files.
const MARKER: &str = "sk-marker-7f3a";

/// A world that has nothing, or says the same to every question.
struct World {
    has_secrets: bool,
    cores: usize,
}

impl Sources for World {
    fn env(&self, _: &str) -> Option<String> {
        self.has_secrets.then(|| MARKER.to_owned())
    }

    fn file(&self, _: &Path) -> io::Result<String> {
        if self.has_secrets { Ok(MARKER.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn cores(&self) -> Vec<usize> {
        (0..self.cores).collect()
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(MARKER) {
        return;
    }
    let mut dice = Dice::of(data);
    for has_secrets in [false, true] {
        let world = World { has_secrets, cores: dice.pick(&[0, 1, 4, 1024]) };
        let errors = match compile(text, Path::new("/etc/ringway"), &world) {
            Ok(config) => {
                assert!(!config.listeners.is_empty() && !config.cores.is_empty());
                assert!(config.cores.iter().all(|core| *core < world.cores));
                assert!(config.limits.target_bytes_max <= config.limits.head_bytes_max);
                let routes = config.models.iter().chain(&config.default_model);
                assert!(routes.clone().all(|model| !model.route.is_empty()) && routes.count() > 0);
                assert!(config.endpoints.iter().all(|endpoint| endpoint.provider < config.providers.len()));
                continue;
            }
            Err(errors) => errors,
        };
        assert!((1..=1000).contains(&errors.iter().len()));
        let mut place = (0, 0);
        for error in errors.iter() {
            let line = text.split('\n').nth(error.line - 1).expect("a line of the text");
            assert!((1..=line.chars().count() + 1).contains(&error.column), "{error:?}");
            assert!(place <= (error.line, error.column), "not in order");
            place = (error.line, error.column);
            assert!(!error.what.is_empty());
        }
        let report = errors.render("ringway.toml");
        // A name that is filled from the environment is no secret; a key that is read from there is.
        assert!(text.contains("${") || !report.contains(MARKER), "a secret is shown: {report}");
        assert!(report.chars().all(|c| c == '\n' || !c.is_control()), "{report:?}");
    }
});
