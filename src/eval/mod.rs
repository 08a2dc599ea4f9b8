//! What a run learned, in numbers: clustering of the embeddings, agreement with labels, and figures that need no labels.

pub mod arrays;
pub mod collapse;
mod covariance;
pub mod embed;
mod evaluate;
pub mod kmeans;
pub mod metrics;
pub mod parquet;
pub mod pca;
pub mod probe;

mod cholesky;
mod products;
mod rows;

pub(crate) use cholesky::Cholesky;
pub(crate) use covariance::Covariance;
pub use evaluate::{Baselines, Evaluation, Evaluator, FactorRow, cluster_on, embedding_figures};
pub(crate) use products::dots;
pub(crate) use rows::Rows;
