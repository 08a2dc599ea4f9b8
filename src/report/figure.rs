//! A figure: drawn once as SVG, shown in the page, and written as SVG and PNG.

use std::fmt::{Display, Formatter};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use maud::{Markup, PreEscaped, html};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::theme;
use crate::atomic_file::write_atomically;
use crate::{Error, Result};

/// Pixels of a PNG for a unit of its drawing.
const PNG_SCALE: f32 = 2.0;
/// Pixels above which a PNG is drawn smaller.
const PNG_PIXELS: f64 = 5e7;

/// A drawing in units that are CSS pixels at its natural size.
pub struct Svg {
    /// Units across.
    pub width: f64,
    /// Units down.
    pub height: f64,
    /// What is in it: elements, coloured by the classes of [`theme`].
    pub body: Markup,
}

/// A figure with everything that has to be said of it.
pub struct Figure {
    /// Its name in files and links: letters, digits and `-`.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What is seen, and how it was made.
    pub caption: String,
    /// The drawing.
    pub svg: Svg,
    /// What a page's script may attach to it: the name of a set of points, if its points can be asked.
    pub points: Option<&'static str>,
}

/// A number in a drawing: a hundredth of a pixel is enough.
#[derive(Clone, Copy)]
pub struct N(pub f64);

impl Display for N {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        // `+ 0.0` makes a zero of a negative one.
        ((self.0 * 100.0).round() / 100.0 + 0.0).fmt(f)
    }
}

impl Svg {
    /// The drawing as a part of a page, which brings the style. `label` is what a reader hears.
    pub fn inline(&self, label: &str) -> Markup {
        html! {
            svg viewBox=(self.view_box()) role="img" aria-label=(label) { (self.body) }
        }
    }

    fn view_box(&self) -> String {
        format!("0 0 {} {}", N(self.width), N(self.height))
    }

    /// The drawing as a file.
    pub fn standalone(&self, title: &str) -> String {
        let (style, ground) = theme::figure_style();
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(self.view_box()) width=(N(self.width)) height=(N(self.height)) {
                title { (title) }
                style { (PreEscaped(style)) }
                rect width=(N(self.width)) height=(N(self.height)) fill=(ground) {}
                (self.body)
            }
        };
        // Names come from outside: characters that XML does not have at all would make the file unreadable.
        svg.into_string()
            .chars()
            .filter(|&c| c >= ' ' || "\t\n\r".contains(c))
            .filter(|c| !"\u{fffe}\u{ffff}".contains(*c))
            .collect()
    }

    /// The drawing as a PNG's bytes, twice its natural size.
    ///
    /// # Errors
    /// If it cannot be drawn, which would be a fault of this program.
    pub fn png(&self, title: &str) -> Result<Vec<u8>> {
        let failed = |what: &str| Error::shape("figure", format!("{title}: {what}"));
        let options = Options { font_family: "Ubuntu".into(), fontdb: Arc::clone(&FONTS), ..Options::default() };
        let tree = Tree::from_str(&self.standalone(title), &options).map_err(|e| failed(&e.to_string()))?;
        let scale = PNG_SCALE.min((PNG_PIXELS / (self.width * self.height)).sqrt() as f32);
        let side = |units: f64| (units as f32 * scale).round().max(1.0) as u32;
        let mut pixels = Pixmap::new(side(self.width), side(self.height)).ok_or_else(|| failed("too large to draw"))?;
        resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().map_err(|e| failed(&e.to_string()))
    }
}

/// The one font that PNGs are written in.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family("Ubuntu");
    Arc::new(fonts)
});

impl Figure {
    /// The figure in a page.
    pub fn html(&self) -> Markup {
        html! {
            figure id=(self.id) data-points=[self.points] {
                h3 { (self.title) }
                (self.svg.inline(&self.title))
                figcaption { (self.caption) }
            }
        }
    }

    /// Writes `ID.svg` and `ID.png` in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let svg = self.svg.standalone(&self.title);
        write_atomically(&folder.join(format!("{}.svg", self.id)), |file| file.write_all(svg.as_bytes()))?;
        let png = self.svg.png(&self.title)?;
        write_atomically(&folder.join(format!("{}.png", self.id)), |file| file.write_all(&png))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_drawn_with_its_text() {
        let text = "Größe <&> \u{1}5";
        let svg = Svg {
            width: 60.0,
            height: 20.0,
            body: html! { rect class="f1" x="40" width="20" height="20" {} text class="tx" x="2" y="14" { (text) } },
        };
        let file = svg.standalone("<t>");
        assert!(file.contains("Größe &lt;&amp;&gt; 5") && file.contains("<title>&lt;t&gt;</title>"), "{file}");
        let png = svg.png("t").unwrap();
        let picture = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (120, 40));
        assert_eq!(picture.get_pixel(100, 20).0, [0xd5, 0x5e, 0x00]);
        // Letters: the left part is neither empty nor full.
        let dark = picture.enumerate_pixels().filter(|(x, _, p)| *x < 78 && p.0[0] < 128).count();
        assert!((20..1500).contains(&dark), "{dark} dark pixels");
    }
}
