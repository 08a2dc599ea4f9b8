//! Points in the plane, coloured by the group they belong to: t-SNE's maps.

use maud::{Markup, html};

use super::figure::{N, Svg};
use super::theme;

/// Units across and down; what a phone is wide.
const SIDE: f64 = 420.0;
const MARGIN: f64 = 12.0;
/// Groups that are told apart by colour and mark.
pub const DISTINCT: usize = 2 * theme::COLOURS;
/// Groups whose names are written.
const NAMED: usize = 32;
/// Units that a letter takes on average.
const LETTER: f64 = 6.4;

/// Where a point lies in the drawing.
pub fn place(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let bounds = |axis: usize| {
        points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p[axis]), h.max(p[axis])))
    };
    let [(x0, x1), (y0, y1)] = [bounds(0), bounds(1)];
    // One scale for both axes: distances are what such a map is about.
    let extent = (x1 - x0).max(y1 - y0).max(1e-12);
    let side = SIDE - 2.0 * MARGIN;
    let at = |v: f64, low: f64, high: f64| SIDE / 2.0 + (v - (low + high) / 2.0) / extent * side;
    points.iter().map(|p| [at(p[0], x0, x1), SIDE - at(p[1], y0, y1)]).collect()
}

/// Whether a map explains its groups beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// A mark and a name for each, up to `NAMED` groups.
    Shown,
    /// The names in the map say enough.
    Hidden,
}

/// A map of `places` (see [`place`]) coloured by `groups`, an index into `names` each; points without a group are grey and
/// lie below. Names stand in the middle of their groups where they have room.
pub fn draw(places: &[[f64; 2]], groups: &[Option<u32>], names: &[String], legend: Legend) -> Svg {
    let of = |group: Option<u32>| -> Vec<[f64; 2]> {
        places.iter().zip(groups).filter(|(_, g)| **g == group).map(|(p, _)| *p).collect()
    };
    let members: Vec<Vec<[f64; 2]>> = (0..names.len()).map(|g| of(Some(g as u32))).collect();
    let (explained, height) =
        if legend == Legend::Shown && names.len() <= NAMED { explain(names) } else { (html! {}, SIDE) };
    let body = html! {
        rect class="gr" x="0.5" y="0.5" width=(N(SIDE - 1.0)) height=(N(SIDE - 1.0)) rx="6" {}
        path class="pt s7" stroke-linecap="round" opacity="0.4" d=(dots(&of(None))) {}
        @for (i, members) in members.iter().enumerate() {
            @if !members.is_empty() {
                path class={ "pt s" (theme::colour(i)) } stroke-linecap=(theme::mark(i)) opacity="0.75" d=(dots(members)) {}
            }
        }
        @if names.len() <= NAMED { (labels(names, &members)) }
        (explained)
    };
    Svg { width: SIDE, height, body }
}

/// The groups' marks and names under the map, and how high it is with them.
fn explain(names: &[String]) -> (Markup, f64) {
    let (mut x, mut y) = (MARGIN, SIDE + 16.0);
    let mut entries = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let name = shortened(name, 30);
        let size = 22.0 + LETTER * name.chars().count() as f64;
        if x > MARGIN && x + size > SIDE {
            (x, y) = (MARGIN, y + 16.0);
        }
        entries.push((i, name, x, y));
        x += size;
    }
    let drawn = html! {
        @for (i, name, x, y) in entries {
            path class={ "pt s" (theme::colour(i)) } style="stroke-width:8px" stroke-linecap=(theme::mark(i))
                d={ "M" (N(x + 4.0)) " " (N(y - 4.0)) "h0" } {}
            text class="tx" x=(N(x + 12.0)) y=(N(y)) { (name) }
        }
    };
    (drawn, y + 8.0)
}

/// The first letters of a name.
fn shortened(name: &str, letters: usize) -> String {
    name.chars().take(letters).collect()
}

/// A path that is a dot at each place.
fn dots(places: &[[f64; 2]]) -> String {
    places.iter().map(|[x, y]| format!("M{} {}h0", N(*x), N(*y))).collect()
}

/// Each group's name at its middle, by medians: a few far points do not move it. A name that would lie over an earlier one
/// is left out.
fn labels(names: &[String], members: &[Vec<[f64; 2]>]) -> Markup {
    let mut placed: Vec<(String, f64, f64)> = Vec::new();
    for (name, members) in names.iter().zip(members).filter(|(_, members)| !members.is_empty()) {
        let middle = |axis: usize| {
            let mut values: Vec<f64> = members.iter().map(|p| p[axis]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let name = shortened(name, 20);
        let half = LETTER / 2.0 * name.chars().count() as f64;
        let (x, y) = (middle(0).clamp(half + 2.0, SIDE - half - 2.0), middle(1) + 4.0);
        let free = placed.iter().all(|(other, ox, oy)| {
            (x - ox).abs() > half + LETTER / 2.0 * other.chars().count() as f64 + 2.0 || (y - oy).abs() > 12.0
        });
        if free {
            placed.push((name, x, y));
        }
    }
    html! { @for (name, x, y) in placed { text class="tx tb" x=(N(x)) y=(N(y)) text-anchor="middle" { (name) } } }
}

/// What a caption says of the colours where there are more groups than can be told apart.
pub fn colours_note(groups: usize) -> &'static str {
    if groups > DISTINCT { " Colours repeat: there are more groups than can be told apart." } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_once_where_it_belongs() {
        let points = [[0.0, 0.0], [10.0, 0.0], [10.0, 5.0], [5.0, 2.5]];
        let places = place(&points);
        assert_eq!(places, [[12.0, 309.0], [408.0, 309.0], [408.0, 111.0], [210.0, 210.0]]);
        let names = ["a".to_owned(), "<b>".to_owned()];
        let groups = [Some(1), Some(0), None, Some(1)];
        let drawn = draw(&places, &groups, &names, Legend::Hidden).body.into_string();
        assert!(drawn.contains(r#"d="M12 309h0M210 210h0""#) && drawn.contains(r#"d="M408 111h0""#), "{drawn}");
        assert_eq!(drawn.matches("&lt;b&gt;").count(), 1);
        let explained = draw(&places, &groups, &names, Legend::Shown);
        assert!(explained.height > SIDE && explained.body.into_string().matches("&lt;b&gt;").count() == 2);
        // Names in one place: the first is written.
        let over = draw(&[[50.0, 50.0]; 2], &[Some(0), Some(1)], &names, Legend::Hidden).body.into_string();
        assert!(over.contains(">a<") && !over.contains("&lt;b&gt;"), "{over}");
        // All in one place.
        assert_eq!(place(&[[3.0, 3.0]; 2]), [[210.0, 210.0]; 2]);
    }
}
