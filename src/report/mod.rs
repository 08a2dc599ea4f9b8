//! What a run learned, made visible.

pub mod cluster_count;
pub mod clusters;
pub mod heads;
pub mod information;
pub mod neighbours;
pub mod tsne;
