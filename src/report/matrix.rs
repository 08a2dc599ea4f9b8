//! A table of counts as shaded cells: clusters against classes.

use maud::html;

use super::figure::{N, Svg};

const WIDTH: f64 = 420.0;
/// Columns and rows up to which counts are written into the cells.
const COUNTED: usize = 12;
/// Rows and columns up to which each is named.
const NAMED: usize = 40;
/// Shares above which ink on a cell is the other one.
const DARK: f64 = 0.55;
/// Units a letter takes.
const LETTER: f64 = 6.0;

/// `counts`, `rows.len()` x `columns.len()`, row-major; a cell is shaded by its share of its row.
pub fn draw(counts: &[u64], rows: &[String], columns: &[String], axes: [&str; 2]) -> Svg {
    let letters = rows.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(16);
    let left = if rows.len() <= NAMED { 26.0 + LETTER * letters as f64 } else { 26.0 };
    let cell_width = (WIDTH - left - 4.0) / columns.len() as f64;
    let cell_height = cell_width.clamp(4.0, 26.0);
    let top = 34.0;
    let bottom = top + cell_height * rows.len() as f64;
    let total = |row: usize| counts[row * columns.len()..][..columns.len()].iter().sum::<u64>().max(1) as f64;
    let body = html! {
        text class="tx" x=(N(left + (WIDTH - left) / 2.0)) y="12" text-anchor="middle" { (axes[1]) }
        text class="tx" text-anchor="middle" transform={ "translate(12 " (N((top + bottom) / 2.0)) ") rotate(-90)" } { (axes[0]) }
        @if columns.len() <= NAMED && cell_width >= 12.0 {
            @for (i, name) in columns.iter().enumerate() {
                @let shown = name.chars().take((cell_width / LETTER) as usize).collect::<String>();
                text class="tx tf" x=(N(left + (i as f64 + 0.5) * cell_width)) y=(N(top - 6.0)) text-anchor="middle" { (shown) }
            }
        }
        @for (i, name) in rows.iter().enumerate() {
            @let y = top + i as f64 * cell_height;
            @if rows.len() <= NAMED && cell_height >= 9.0 {
                @let shown = name.chars().take(letters).collect::<String>();
                text class="tx tf" x=(N(left - 5.0)) y=(N(y + cell_height / 2.0 + 4.0)) text-anchor="end" { (shown) }
            }
            @for j in 0..columns.len() {
                @let count = counts[i * columns.len() + j];
                @let share = count as f64 / total(i);
                @if count > 0 {
                    rect class="cell" x=(N(left + j as f64 * cell_width)) y=(N(y)) width=(N(cell_width)) height=(N(cell_height))
                        opacity=(N(0.06 + 0.94 * share)) {}
                    @if columns.len() <= COUNTED && rows.len() <= 2 * COUNTED {
                        text class=(if share > DARK { "tx to" } else { "tx" }) x=(N(left + (j as f64 + 0.5) * cell_width))
                            y=(N(y + cell_height / 2.0 + 4.0)) text-anchor="middle" { (count) }
                    }
                }
            }
        }
        rect class="ax" x=(N(left)) y=(N(top)) width=(N(cell_width * columns.len() as f64)) height=(N(bottom - top)) {}
    };
    Svg { width: WIDTH, height: bottom + 6.0, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_and_large_tables_are_only_shaded() {
        let names = |n: usize| (0..n).map(|i| format!("<{i}>")).collect::<Vec<_>>();
        let small = draw(&[7, 0, 1, 3], &names(2), &names(2), ["class", "cluster"]).body.into_string();
        assert!(
            small.contains(">7<") && small.contains(">1<") && !small.contains(">0<") && small.contains("&lt;1&gt;")
        );
        assert_eq!(small.matches("class=\"cell\"").count(), 3);
        let large = draw(&[5; 10_000], &names(100), &names(100), ["class", "cluster"]);
        assert!(!large.body.0.contains(">5<") && large.height < 600.0);
        assert!(!draw(&[0, 0], &names(1), &names(2), ["a", "b"]).body.0.contains("NaN"));
    }
}
