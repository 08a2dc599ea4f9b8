//! Colours of pages and figures: one list, told to browsers as light and dark, and to exported figures as light.
//!
//! The series colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; yellow, which white
//! paper swallows, is darkened, and all are lightened on dark ground.

use std::fmt::Write as _;

/// Colours that a series can have; more series repeat them with another [`mark`].
pub const COLOURS: usize = 8;

/// One scheme's colours.
struct Scheme {
    ground: &'static str,
    panel: &'static str,
    ink: &'static str,
    faint: &'static str,
    grid: &'static str,
    /// Ink on a filled cell.
    on_fill: &'static str,
    series: [&'static str; COLOURS],
}

const LIGHT: Scheme = Scheme {
    ground: "#ffffff",
    panel: "#f5f6f7",
    ink: "#1b1f24",
    faint: "#5d656e",
    grid: "#dfe3e7",
    on_fill: "#ffffff",
    series: ["#0072b2", "#d55e00", "#009e73", "#b8498f", "#e69f00", "#56b4e9", "#857a00", "#6b6b6b"],
};

const DARK: Scheme = Scheme {
    ground: "#14171a",
    panel: "#1d2226",
    ink: "#e8eaed",
    faint: "#a3abb3",
    grid: "#353c43",
    on_fill: "#0c0e10",
    series: ["#4ba3db", "#f28a4b", "#2cc299", "#e59bc9", "#f2b84b", "#9ad4f7", "#d8cc50", "#b9b9b9"],
};

/// The colour of series `i`, an index into the scheme's.
pub fn colour(i: usize) -> usize {
    i % COLOURS
}

/// How the points of series `i` are drawn: round until the colours are used up, then square, and so on.
pub fn mark(i: usize) -> &'static str {
    if (i / COLOURS).is_multiple_of(2) { "round" } else { "square" }
}

impl Scheme {
    fn variables(&self) -> String {
        let Scheme { ground, panel, ink, faint, grid, .. } = self;
        format!(
            "--ground:{ground};--panel:{panel};--ink:{ink};--faint:{faint};--grid:{grid};--accent:{}",
            self.series[0]
        )
    }

    /// The rules that figures are drawn with: no variables, which exported figures could not resolve.
    fn rules(&self) -> String {
        let Scheme { ground, ink, faint, grid, on_fill, series, .. } = self;
        let mut css = format!(
            ".tx{{fill:{ink};font-family:system-ui,Ubuntu,sans-serif;font-size:11px}}.tf{{fill:{faint}}}.to{{fill:{on_fill}}}\
             .tb{{font-weight:600;paint-order:stroke;stroke:{ground};stroke-width:3px;stroke-linejoin:round}}\
             .ax{{stroke:{faint};stroke-width:1;fill:none}}.gr{{stroke:{grid};stroke-width:1;fill:none}}\
             .rf{{stroke:{faint};stroke-width:1.5;fill:none}}.cell{{fill:{};stroke:none}}.ln{{fill:none;stroke-width:1.8;\
             stroke-linejoin:round;stroke-linecap:round}}.pt{{fill:none;stroke-width:4.6}}.rg{{fill:none;stroke:{ink};\
             stroke-width:2}}",
            series[0]
        );
        for (i, colour) in series.iter().enumerate() {
            write!(css, ".s{i}{{stroke:{colour}}}.f{i}{{fill:{colour}}}").expect("a string grows");
        }
        css
    }
}

/// The style of a figure that stands alone, and what it is drawn on.
pub fn figure_style() -> (String, &'static str) {
    (LIGHT.rules(), LIGHT.ground)
}

/// The colours of a page: light, and dark on screens that ask for it; paper is light.
pub fn page_style() -> String {
    let scheme = |scheme: &Scheme| format!(":root{{{}}}{}", scheme.variables(), scheme.rules());
    format!(
        ":root{{color-scheme:light dark}}{}@media screen and (prefers-color-scheme:dark){{{}}}",
        scheme(&LIGHT),
        scheme(&DARK)
    )
}
