//! The learning-rate schedule against PyTorch's `CosineAnnealingLR` and its closed form. Cases are named `lr<base>_T<epochs>`.

use disentangle::optim::schedule::Schedule;

use crate::judge::Judge;
use crate::reader::{Golden, Kind, each};

fn check(golden: &Golden) {
    let mut judge = Judge::new::<f64>(golden);
    for case in golden.cases() {
        let parts = case.strip_prefix("lr").and_then(|rest| rest.split_once("_T"));
        let (base, epochs) = parts.unwrap_or_else(|| panic!("{case} is not lr<base>_T<epochs>"));
        let (base, epochs): (f64, u64) = (base.parse().unwrap(), epochs.parse().unwrap());
        // One rate an epoch, and the one after the last.
        let rates: Vec<f64> = (0..=epochs).map(|e| Schedule::Cosine.learning_rate(base, e, epochs)).collect();
        let compare = |judge: &mut Judge, leaf: &str, allowed: f64| {
            let expected = golden.array(&format!("{case}/{leaf}")).values;
            assert_eq!(expected.len(), rates.len(), "{case}/{leaf}: one rate an epoch, and one more");
            let worst = rates.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            judge.at_most(&format!("{case}/{leaf}"), worst, allowed);
        };
        // The cosine of an argument that is off by a rounding of up to pi, and three more operations on values up to 2.
        compare(&mut judge, "closed_form", 8.0 * f64::EPSILON * base);
        // PyTorch goes from rate to rate, with a few roundings of the base rate in each epoch.
        compare(&mut judge, "torch", 8.0 * epochs as f64 * f64::EPSILON * base);
    }
    judge.finish();
}

#[test]
fn schedule_agrees() {
    each(Kind::Cosine, check);
}
