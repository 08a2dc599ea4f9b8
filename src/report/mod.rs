//! What was learned, to look at.

pub mod chart;
pub mod cluster_count;
pub mod clusters;
pub mod figure;
pub mod heads;
pub mod history;
pub mod information;
pub mod matrix;
pub mod neighbours;
pub mod page;
pub mod paper;
pub mod scatter;
pub mod theme;
pub mod thumbs;
pub mod tsne;
