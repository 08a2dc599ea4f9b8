//! Any bytes as `run.json` and as `baselines.json` of a run's folder.
#![no_main]

use disentangle::run::{RunStamp, baselines};

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    disentangle_fuzz::write("run/run.json", bytes);
    let path = disentangle_fuzz::write("run/baselines.json", bytes);
    let folder = path.parent().expect("it lies in a folder");
    match RunStamp::read(folder) {
        Ok(Some(stamp)) => {
            stamp.write(folder).expect("room for it");
            assert_eq!(RunStamp::read(folder).ok().flatten(), Some(stamp));
        }
        Ok(None) => {}
        Err(error) => disentangle_fuzz::check_error(&error),
    }
    baselines(folder);
});
