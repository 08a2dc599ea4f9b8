//! Any text as a configuration file. What is accepted can be written, and read back as the same.
#![no_main]

use disentangle::config::Config;

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |text: &str| {
    match Config::from_toml(text, "any.toml") {
        Ok(config) => disentangle_fuzz::check_config(&config),
        Err(error) => disentangle_fuzz::check_error(&error),
    }
});
