//! The sections of a report, a file each.

pub mod clusters;
pub mod heads;
pub mod maps;
pub mod method;
pub mod neighbours;
pub mod overview;
pub mod scores;
pub mod training;

/// Three decimals, or a dash for what is no number.
pub fn decimals(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "-".into() }
}
