//! The feature heads: what they say over a batch, what turns each on, and what they know.

use maud::{Markup, html};

use super::clusters::contact_sheet;
use super::decimals;
use super::overview::class_of;
use crate::Result;
use crate::data::Dataset;
use crate::eval::FactorRow;
use crate::report::figure::{Figure, N, Svg};
use crate::report::findings::{CLASS, Findings, HEADS};
use crate::report::heads::{Head, HeadState, Response, Responses, SAME, transposed};
use crate::report::information::Reading;
use crate::report::neighbours::choose;
use crate::report::page::{Part, Section, count, table};
use crate::report::run_files::RunFiles;
use crate::report::thumbs::{Thumbs, png_uri};

/// Heads that are shown at once; the others are folded.
const OPEN: usize = 12;
/// Rows of the picture of a batch, at most.
const PICTURED: usize = 512;
/// Heads among the exported figures.
const EXPORTED: usize = 16;
/// A reading this many times its bias says something.
const TELLING: f64 = 2.0;
/// Colours of outputs from 0 to 1: five of the viridis map, between which is interpolated.
const RAMP: [[f64; 3]; 5] = [[68., 1., 84.], [59., 82., 139.], [33., 145., 140.], [94., 201., 98.], [253., 231., 37.]];

/// The section.
///
/// # Errors
/// If the outputs are none of heads.
pub fn section(run: &RunFiles, findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Result<Section> {
    let mut parts = vec![Part::Html(states(&findings.heads)), Part::Figures(vec![batch(run, findings)?])];
    let scores = run.evaluation.as_ref().map(|evaluation| evaluation.factors.as_slice()).unwrap_or_default();
    parts.extend(known(findings, scores).map(Part::Html));
    let heads = findings.shown_heads();
    let (open, folded) = heads.split_at(OPEN.min(heads.len()));
    let cards = |heads: &[&Head]| {
        html! { div.cards.heads { @for head in heads { (card(head, findings, dataset, thumbs)) } } }
    };
    let shown = html! {
        h3 { "What turns each head on" }
        p.note {
            "The most active head first, then always the one least like those before it. on: share of the images with an \
             output above 0.5. Entropy: mean of the outputs' binary entropy in bits, 1 for a head that never decides."
        }
        (cards(open))
        @if !folded.is_empty() {
            details { summary { "The other " (count(folded.len(), "head")) } (cards(folded)) }
        }
        @if heads.len() < findings.heads.len() { p.note { (HEADS) " of " (findings.heads.len()) " heads are shown." } }
    };
    let exported = heads.iter().take(EXPORTED).map(|head| sheet(head, findings, thumbs)).collect();
    parts.push(Part::Pictures { shown, figures: exported });
    Ok(Section::new("heads", "Heads", parts))
}

/// How many heads work, and the names of those that do not.
fn states(heads: &[Head]) -> Markup {
    let of = |state: HeadState| -> Vec<usize> {
        heads.iter().filter(|head| head.state == state).map(|head| head.index).collect()
    };
    let list = |indices: &[usize]| {
        let named: Vec<String> = indices.iter().take(40).map(usize::to_string).collect();
        named.join(", ") + if indices.len() > 40 { ", ..." } else { "" }
    };
    let (constant, saturated) = (of(HeadState::Constant), of(HeadState::Saturated));
    let own = heads.iter().filter(|head| head.repeats < SAME).count();
    let repeating = heads.len() - constant.len() - own;
    html! {
        p {
            (count(heads.len(), "head")) ", of which " (heads.len() - constant.len() - saturated.len()) " tell images apart and still learn. "
            @if constant.is_empty() { "None is dead." }
            @else { "Dead, saying the same of every image: " (constant.len()) " (" (list(&constant)) ")." }
            @if !saturated.is_empty() {
                " Saturated, nearly all outputs at 0 or 1, where they hardly learn: " (saturated.len()) " (" (list(&saturated)) ")."
            }
            @if repeating > 0 {
                " " (own) " say something of their own; the other " (repeating) " repeat one of these (correlation of " (SAME) " or more, or of -"
                (SAME) " or less)."
            }
        }
    }
}

/// The paper's Figure 3: outputs over a batch.
fn batch(run: &RunFiles, findings: &Findings) -> Result<Figure> {
    let dim = findings.embeddings.y_dim;
    let mut rows = choose(findings.sample.len(), run.config.batch_size.min(PICTURED), run.config.eval.seed);
    let cluster = |row: usize| findings.clusters.as_ref().map_or(0, |clusters| clusters.labels[row]);
    rows.sort_by_key(|&row| (cluster(row), row));
    let y: Vec<f32> = rows.iter().flat_map(|&row| &findings.embeddings.y[row * dim..][..dim]).copied().collect();
    let Responses { heads, images, outputs } = transposed(&y, dim, 0..rows.len())?;
    let shown = heads.min(PICTURED);
    let pixels: Vec<u8> = outputs[..shown * images].iter().flat_map(|&output| ramp(f64::from(output))).collect();
    let (left, top, width) = (34.0, 8.0, 380.0);
    let height = (width * shown as f64 / images as f64).clamp(60.0, 700.0);
    let scale: Vec<u8> = (0..64).flat_map(|i| ramp(f64::from(i) / 63.0)).collect();
    let base = top + height;
    let body = html! {
        image x=(N(left)) y=(N(top)) width=(N(width)) height=(N(height)) preserveAspectRatio="none" style="image-rendering:pixelated"
            href=(png_uri(&pixels, images, shown)) {}
        rect class="ax" x=(N(left)) y=(N(top)) width=(N(width)) height=(N(height)) {}
        text class="tx" x=(N(left + width / 2.0)) y=(N(base + 16.0)) text-anchor="middle" { "image" }
        text class="tx" text-anchor="middle" transform={ "translate(22 " (N(top + height / 2.0)) ") rotate(-90)" } { "head" }
        image x=(N(left + 24.0)) y=(N(base + 26.0)) width="120" height="10" preserveAspectRatio="none" href=(png_uri(&scale, 64, 1)) {}
        text class="tx tf" x=(N(left + 18.0)) y=(N(base + 35.0)) text-anchor="end" { "0" }
        text class="tx tf" x=(N(left + 150.0)) y=(N(base + 35.0)) { "1 (output)" }
    };
    let order = if findings.clusters.is_some() { ", in the order of their clusters" } else { "" };
    let cut = if shown < heads { format!(" The first {shown} of {heads} heads.") } else { String::new() };
    Ok(Figure {
        id: "heads".into(),
        title: "The heads over a batch".into(),
        caption: format!(
            "Outputs of the heads (rows) for {} drawn at random (columns{order}): as the paper's Figure 3. A row of one \
             colour is a head that does not tell images apart.{cut}",
            count(images, "image")
        ),
        svg: Svg { width: 420.0, height: base + 44.0, body },
        points: None,
    })
}

/// The colour of an output.
fn ramp(output: f64) -> [u8; 3] {
    let at = output.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let i = (at as usize).min(RAMP.len() - 2);
    let t = at - i as f64;
    std::array::from_fn(|c| (RAMP[i][c] * (1.0 - t) + RAMP[i + 1][c] * t).round() as u8)
}

/// What the heads say of classes and factors; `None` where nothing is known.
fn known(findings: &Findings, scores: &[FactorRow]) -> Option<Markup> {
    if findings.readings.is_empty() {
        return None;
    }
    let row = |reading: &Reading| {
        let head = |head: usize| html! { (head) " (" (decimals(reading.bits[head])) ")" };
        let score = scores.iter().find(|score| score.factor == reading.name);
        let mut cells = vec![
            html! { (reading.name) },
            html! { (decimals(reading.entropy)) },
            head(reading.best),
            reading.second.map_or(html! { "-" }, head),
            html! { (decimals(reading.bias[reading.best])) },
            html! { (decimals(reading.gap)) },
        ];
        if !scores.is_empty() {
            cells.push(html! { (score.and_then(|s| s.untrained).map_or("-".into(), decimals)) });
            cells.push(html! { (score.map_or("-".into(), |s| decimals(s.backbone))) });
            cells.push(html! { (score.map_or("-".into(), |s| decimals(s.feature))) });
        }
        cells
    };
    let mut head = vec!["", "bits in it", "best head (bits)", "second (bits)", "bits by chance", "gap"];
    if !scores.is_empty() {
        head.extend(["read: untrained", "from h", "from y"]);
    }
    let rows: Vec<Vec<Markup>> = findings.readings.iter().map(row).collect();
    Some(html! {
        h3 { "What the heads know" }
        (table(&head, &rows))
        p.note {
            "Mutual information of a head's output (20 bins of equal width) with what is known of "
            (count(findings.sample.len(), "image")) ", in bits; by chance: what a head that knows nothing would show. Gap: lead of the best \
             head over the second, as a share of the bits in it."
            @if !scores.is_empty() { " Read: how well a linear probe reads the factor, 0 chance, 1 perfect." }
        }
        @if let Some(disentanglement) = &findings.disentanglement {
            p {
                "Disentanglement of the factors: mutual information gap (MIG) " strong { (decimals(disentanglement.mig)) }
                @if let Some(modularity) = disentanglement.modularity { ", modularity " strong { (decimals(modularity)) } }
                ", both from 0 to 1."
            }
            p.note {
                "MIG: Chen, Li, Grosse, Duvenaud, \"Isolating Sources of Disentanglement in Variational Autoencoders\", 2018: the mean \
                 gap; 1 if each factor has one head of its own. Modularity: Ridgeway, Mozer, \"Learning Deep Disentangled Embeddings with \
                 the F-Statistic Loss\", 2018: 1 if each head speaks of one factor."
            }
        }
    })
}

fn card(head: &Head, findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Markup {
    let tiles = |responses: &[Response]| {
        html! {
            div.tiles {
                @for response in responses {
                    @let i = findings.sample[response.image];
                    @let said = format!("{} output {:.2}", class_of(dataset, i), response.output);
                    (thumbs.html(i, said.trim()))
                }
            }
        }
    };
    let state = match head.state {
        HeadState::Alive => "",
        HeadState::Constant => ", dead",
        HeadState::Saturated => ", saturated",
    };
    let similar: Vec<String> =
        head.similar.iter().map(|similar| format!("{} ({:+.2})", similar.head, similar.correlation)).collect();
    html! {
        div.card data-head=(head.index) {
            h3 { "Head " (head.index) (state) }
            p {
                "Mean " (format!("{:.2}", head.mean)) ", on " (format!("{:.0} %", 100.0 * head.on)) ", entropy "
                (format!("{:.2}", head.entropy)) "."
                @for text in says(head.index, findings) { " " (text) }
                @if !similar.is_empty() { " Like heads " (similar.join(", ")) "." }
            }
            h4 { "most" }
            (tiles(&head.most))
            h4 { "least" }
            (tiles(&head.least))
        }
    }
}

/// What a head says of what is known, the most telling first; nothing that chance would say as well.
fn says(head: usize, findings: &Findings) -> Vec<String> {
    let mut telling: Vec<&Reading> =
        findings.readings.iter().filter(|r| r.bits[head] > TELLING * r.bias[head] && r.entropy > 0.0).collect();
    telling.sort_by(|a, b| (b.bits[head] / b.entropy).total_cmp(&(a.bits[head] / a.entropy)));
    let text = |r: &&Reading| {
        let name = if r.name == CLASS { "the class" } else { r.name.as_str() };
        format!("Says {:.2} of {:.2} bits of {name}.", r.bits[head], r.entropy)
    };
    telling.iter().take(2).map(text).collect()
}

fn sheet(head: &Head, findings: &Findings, thumbs: &Thumbs) -> Figure {
    let images = |responses: &[Response]| responses.iter().map(|r| findings.sample[r.image]).collect();
    let rows = [("most".to_owned(), images(&head.most)), ("least".to_owned(), images(&head.least))];
    contact_sheet(format!("head-{:03}", head.index), format!("Head {}", head.index), &rows, thumbs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_colours() {
        assert_eq!([0.0, 0.5, 1.0, 2.0].map(ramp), [[68, 1, 84], [33, 145, 140], [253, 231, 37], [253, 231, 37]]);
        assert_eq!(ramp(0.125), [64, 42, 112]);
    }
}
