//! A page: one HTML file that needs nothing else. No request leaves it, and it runs no script but its own: its policy
//! (`Content-Security-Policy`) allows pictures that are in it and the script with this hash. It is complete without that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::figure::Figure;
use super::theme;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A page.
pub struct Page {
    /// Its name.
    pub title: String,
    /// A line under it.
    pub subtitle: String,
    /// What is in it.
    pub sections: Vec<Section>,
    /// Style rules beside the common ones: pictures.
    pub style: String,
    /// What the script shows when a point of a figure is pointed at, as JSON.
    pub points: Option<serde_json::Value>,
}

/// A part of a page with a heading.
pub struct Section {
    /// Its name in links: letters.
    pub id: &'static str,
    /// Its heading.
    pub title: String,
    /// What is in it.
    pub parts: Vec<Part>,
}

/// A piece of a section.
pub enum Part {
    /// Text, tables.
    Html(Markup),
    /// Figures, side by side where there is room.
    Figures(Vec<Figure>),
    /// Figures that the page shows as HTML of its own: pictures that wrap.
    Pictures {
        /// In the page.
        shown: Markup,
        /// In files.
        figures: Vec<Figure>,
    },
}

impl Section {
    /// A section with these parts.
    pub fn new(id: &'static str, title: impl Into<String>, parts: Vec<Part>) -> Section {
        Section { id, title: title.into(), parts }
    }

    fn html(&self) -> Markup {
        html! {
            section id=(self.id) {
                h2 { (self.title) }
                @for part in &self.parts {
                    @match part {
                        Part::Html(html) => (html),
                        Part::Figures(figures) => {
                            div class={ "figures " (columns(figures.len())) } { @for figure in figures { (figure.html()) } }
                        }
                        Part::Pictures { shown, .. } => (shown),
                    }
                }
            }
        }
    }
}

impl Page {
    /// Every figure, in the order of the page.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.sections.iter().flat_map(|section| &section.parts).flat_map(|part| match part {
            Part::Html(_) => [].iter(),
            Part::Figures(figures) | Part::Pictures { figures, .. } => figures.iter(),
        })
    }

    /// The file.
    pub fn html(&self) -> String {
        let hash = BASE64.encode(Sha256::digest(SCRIPT.as_bytes()));
        let policy = format!(
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
        );
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="generator" content={ "disentangle " (env!("CARGO_PKG_VERSION")) };
                    title { (self.title) }
                    style { (PreEscaped(theme::page_style())) (PreEscaped(STYLE)) (PreEscaped(&self.style)) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        p { (self.subtitle) }
                        nav { @for section in &self.sections { a href={ "#" (section.id) } { (section.title) } } }
                    }
                    main { @for section in &self.sections { (section.html()) } }
                    @if let Some(points) = &self.points {
                        div #card hidden { i.t {} p {} }
                        script type="application/json" id="points" { (PreEscaped(embedded_json(points))) }
                        script { (PreEscaped(SCRIPT)) }
                    }
                }
            }
        };
        page.into_string()
    }
}

/// How many figures stand side by side where there is room: so that they fill their rows.
fn columns(figures: usize) -> &'static str {
    match figures {
        1 => "one",
        2 | 4 => "two",
        _ => "three",
    }
}

/// JSON that can stand inside a `script` element: nothing in it looks like a tag.
fn embedded_json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A table: a head and rows of cells, the first of a row naming it. Scrolls by itself where it is too wide.
pub fn table(head: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (i, cell) in row.iter().enumerate() {
                                @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A list of names and what they are.
pub fn facts(facts: &[(&str, String)]) -> Markup {
    html! { dl { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

/// `n` things: `1 image`, `2,500 images`.
pub fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// A number with commas between thousands.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let text = |three| std::str::from_utf8(three).unwrap_or_default();
    digits.as_bytes().rchunks(3).rev().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let hostile = r#"</script><img src=x onerror="alert(1)">&"#;
        let section = Section::new("a", hostile, vec![Part::Html(table(&[hostile], &[vec![html! { (hostile) }]]))]);
        let page = Page {
            title: hostile.into(),
            subtitle: hostile.into(),
            sections: vec![section],
            style: String::new(),
            points: Some(serde_json::json!({ "name": [hostile] })),
        };
        let html = page.html();
        assert!(!html.contains("<img") && html.matches("</script>").count() == 2, "{html}");
        assert!(html.contains("\\u003c/script\\u003e\\u003cimg src=x onerror=\\\"alert(1)\\\"\\u003e\\u0026"));
        assert_eq!((count(1, "image"), count(1_234_567, "image")), ("1 image".into(), "1,234,567 images".into()));
    }
}
