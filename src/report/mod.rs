//! What was learned, to look at: one self-contained page about a run, its figures as files, and event files for TensorBoard.
//!
//! | to see | read |
//! |---|---|
//! | what is read off a network | [`findings`], by [`mod@tsne`], [`clusters`], [`cluster_count`], [`neighbours`], [`heads`], [`information`] |
//! | what the run's files say | [`run_files`], [`history`] |
//! | what stands in the page | [`sections`], a file each |
//! | how it is drawn | [`figure`], [`chart`], [`scatter`], [`matrix`], [`thumbs`], [`theme`] |
//! | the page itself | [`mod@page`] |
//! | what is written | [`outputs`] |
//! | several runs | [`compare`] |

pub mod chart;
pub mod cluster_count;
pub mod clusters;
pub mod compare;
pub mod figure;
pub mod findings;
pub mod heads;
pub mod history;
pub mod information;
pub mod matrix;
pub mod neighbours;
pub mod outputs;
pub mod page;
pub mod paper;
pub mod run_files;
pub mod scatter;
pub mod sections;
pub mod theme;
pub mod thumbs;
pub mod tsne;

use crate::Result;
use crate::data::Dataset;
use findings::{Findings, Images};
use page::Page;
use run_files::RunFiles;
use thumbs::Thumbs;

/// What is known beside the run's files.
pub enum Subject<'a> {
    /// The data, and what the network made of them.
    Seen {
        /// The data set.
        dataset: &'a Dataset,
        /// What was found.
        findings: &'a Findings,
        /// Thumbnails of everything that is shown.
        thumbs: &'a Thumbs,
    },
    /// Nothing, and why: no checkpoint, no data.
    Unseen(String),
}

/// The page about a run.
///
/// # Errors
/// If an image can no longer be read.
pub fn page(run: &RunFiles, subject: &Subject) -> Result<Page> {
    let missing = match subject {
        Subject::Unseen(why) => Some(why.as_str()),
        Subject::Seen { .. } => None,
    };
    let mut parts = vec![sections::overview::configuration(run, missing)];
    let (mut style, mut points) = (String::new(), None);
    if let Subject::Seen { dataset, findings, thumbs } = subject {
        parts.push(sections::overview::data(run, dataset, findings, thumbs)?);
        style = thumbs.style()?;
    }
    let paper = match subject {
        Subject::Seen { dataset, findings, .. } if findings.origin.images == Images::TrainedOn => {
            paper::published(dataset)
        }
        _ => None,
    };
    parts.extend(sections::scores::section(run, paper.as_ref()));
    parts.push(sections::training::section(run));
    if let Subject::Seen { dataset, findings, thumbs } = subject {
        if let Some((section, json)) = sections::maps::section(findings, dataset, thumbs) {
            parts.push(section);
            points = Some(json);
        }
        parts.push(sections::clusters::section(findings, dataset, thumbs)?);
        parts.extend(sections::neighbours::section(findings, dataset, thumbs));
        parts.push(sections::heads::section(run, findings, dataset, thumbs)?);
        parts.push(sections::method::section(run, Some((findings, dataset))));
    } else {
        parts.push(sections::method::section(run, None));
    }
    Ok(Page {
        title: format!("What was learned: {}", run.name()),
        subtitle: format!("{}, {}", run.config.data.join(", "), run.progress()),
        sections: parts,
        style,
        points,
    })
}
