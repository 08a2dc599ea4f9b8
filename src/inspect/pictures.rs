//! A contact sheet of a data set, and the views of some of its images as the network will see them.

use serde::Serialize;

use super::sheet::{Layout, Sheet};
use super::with_image;
use crate::Result;
use crate::config::Config;
use crate::data::augment::{Size, render};
use crate::data::loader::with_scratch;
use crate::data::{Dataset, ImageRef};
use crate::rng::{Purpose, stream};

/// Side of a contact sheet's cells in pixels: CIFAR's 32 three times, STL-10's own 96.
pub const CONTACT_CELL: usize = 96;
/// Views smaller than this are shown enlarged by a whole number, up to it.
pub const VIEW_CELL: usize = 192;

/// What is shown in a row of a sheet, from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The text above it: the class of a contact sheet's row, the image of the views'.
    pub caption: String,
    /// Names of its images.
    pub images: Vec<String>,
}

/// A contact sheet of at most `rows` x `columns` images: a row a class, or without classes rows of all images. Where
/// there are more images (or classes) than fit, those shown are spread evenly over them.
///
/// # Errors
/// If the sheet would be too large, or an image can no longer be read.
pub fn contact_sheet(dataset: &Dataset, rows: usize, columns: usize) -> Result<(Sheet, Vec<Row>)> {
    let groups: Vec<(String, Vec<usize>)> = if dataset.classes().is_empty() {
        let chosen: Vec<usize> = spread(dataset.len(), rows * columns).collect();
        chosen.chunks(columns).map(|row| (format!("{} ...", stem(dataset.name(row[0]))), row.to_vec())).collect()
    } else {
        let groups = by_class(dataset);
        let chosen = spread(groups.len(), rows).map(|i| groups[i].clone());
        chosen.map(|(class, all)| (class, spread(all.len(), columns).map(|i| all[i]).collect())).collect()
    };
    let columns = groups.iter().map(|(_, images)| images.len()).max().unwrap_or(1);
    let mut sheet = Sheet::new(Layout { columns, group: columns, rows: groups.len(), cell: CONTACT_CELL })?;
    for (row, (caption, images)) in groups.iter().enumerate() {
        sheet.caption(row, 0, caption);
        for (column, &image) in images.iter().enumerate() {
            with_image(dataset, image, |image| sheet.place(row, column, image))??;
        }
    }
    let name = |&i: &usize| dataset.name(i).to_owned();
    let rows = groups.into_iter().map(|(caption, all)| Row { caption, images: all.iter().map(name).collect() });
    Ok((sheet, rows.collect()))
}

/// The classes that have images, with their images; last those without a class.
fn by_class(dataset: &Dataset) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, Vec<usize>)> =
        dataset.classes().iter().map(|class| (class.clone(), Vec::new())).collect();
    groups.push(("(no class)".into(), Vec::new()));
    for i in 0..dataset.len() {
        let group = dataset.label(i).map_or(groups.len() - 1, |label| label as usize);
        groups[group].1.push(i);
    }
    groups.retain(|(_, images)| !images.is_empty());
    groups
}

/// `wanted` of `0..n`, or all if there are no more: in order, evenly spread.
fn spread(n: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let shown = n.min(wanted);
    (0..shown).map(move |i| i * n / shown)
}

/// Layout of [`views`] for `samples` images (at least 1) at `image_size`: two images side by side, three cells each.
pub fn views_layout(samples: usize, image_size: usize) -> Layout {
    let cell = image_size * (VIEW_CELL / image_size).max(1);
    Layout { columns: 3 * samples.min(2), group: 3, rows: samples.div_ceil(2), cell }
}

/// A sheet of `samples` images, spread evenly over `dataset`: of each the image as it is, then its two views in epoch 0 of
/// a run with this `config`, pixel for pixel (enlarged by a whole number where they are small).
///
/// # Errors
/// If the sheet would be too large, or an image can no longer be read.
pub fn views(dataset: &Dataset, config: &Config, samples: usize) -> Result<(Sheet, Vec<Row>)> {
    let side = config.image_size;
    let chosen: Vec<usize> = spread(dataset.len(), samples).collect();
    let mut sheet = Sheet::new(views_layout(chosen.len(), side))?;
    let mut rows = Vec::new();
    let mut pixels = vec![0; 3 * side * side];
    for (sample, &i) in chosen.iter().enumerate() {
        let (row, column) = (sample / 2, 3 * (sample % 2));
        with_image(dataset, i, |image| -> Result<()> {
            sheet.place(row, column, image)?;
            for view in 0..2 {
                draw_view(image, config, i, view, &mut pixels)?;
                sheet.place(row, column + 1 + view as usize, ImageRef::new(side, side, &pixels)?)?;
            }
            Ok(())
        })??;
        let class = dataset.label(i).and_then(|label| dataset.classes().get(label as usize));
        let (width, height) = dataset.size(i);
        let caption = format!("{} {width}x{height}", class.map_or(stem(dataset.name(i)), String::as_str));
        sheet.caption(row, column, &caption);
        rows.push(Row { caption, images: vec![dataset.name(i).to_owned()] });
    }
    Ok((sheet, rows))
}

/// `tench` of `photos/tench.jpg`.
fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or_default();
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// View `view` (0 or 1) of image `i` in epoch 0, as the loader draws it.
fn draw_view(image: ImageRef, config: &Config, i: usize, view: u32, out: &mut [u8]) -> Result<()> {
    let mut stream = stream(config.seed, Purpose::Augment, 0, i as u64, view);
    let params = config.augment.sample(&mut stream, image.width(), image.height());
    with_scratch(|scratch| render(image, &params, Size::square(config.image_size), scratch, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_spread_evenly() {
        let chosen = |n, wanted| spread(n, wanted).collect::<Vec<_>>();
        assert_eq!(chosen(3, 10), [0, 1, 2]);
        assert_eq!(chosen(10, 4), [0, 2, 5, 7]);
        assert!(chosen(0, 4).is_empty() && chosen(4, 0).is_empty());
    }

    #[test]
    fn small_views_are_enlarged_by_a_whole_number() {
        for (side, cell) in [(8, 192), (32, 192), (64, 192), (80, 160), (96, 192), (97, 97), (224, 224), (2048, 2048)] {
            assert_eq!(views_layout(1, side).cell, cell);
            assert_eq!(views_layout(1, side).columns, 3);
        }
    }
}
