//! Any lines as what follows `--set`, for a new run and over the configuration of an old one.
#![no_main]

use disentangle::config::{Config, Overrides};

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |text: &str| {
    let overrides = Overrides { set: text.lines().map(str::to_owned).collect(), ..Overrides::default() };
    let saved = Config { data: vec!["shapes".to_owned()], ..Config::default() };
    for config in [overrides.resolve(), overrides.resolve_over(&saved)] {
        match config {
            Ok(config) => disentangle_fuzz::check_config(&config),
            Err(error) => disentangle_fuzz::check_error(&error),
        }
    }
});
