//! What a run learned, made visible.

pub mod tsne;
