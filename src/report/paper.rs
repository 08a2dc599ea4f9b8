//! The figures of the paper (Jiang et al., "Contrastive Disentangling"), for the data sets it was measured on and no others.

use crate::data::Dataset;
use crate::data::source::IMAGENET_10;
use crate::eval::metrics::Scores;

/// What the paper reports of a data set: k-means on pixels, and its method with batches of 128 and 256.
pub struct Published {
    /// The paper's name of it.
    pub name: &'static str,
    /// Images in it: Table 1.
    pub images: usize,
    /// With spaces between.
    classes: &'static str,
    /// k-means on raw pixels: Table 2.
    pub pixels: Scores,
    /// k-means on the backbone, CD-128 and CD-256: Table 2.
    pub backbone: [Scores; 2],
    /// k-means on the feature heads, CD-128 and CD-256: Table 3.
    pub feature: [Scores; 2],
}

/// What a data set is to the paper.
pub enum Match {
    /// One that it was measured on.
    Same(&'static Published),
    /// The classes of one, with another number of images: its figures do not apply.
    Part(&'static Published),
}

const fn scores(nmi: f64, ari: f64, acc: f64) -> Scores {
    Scores { nmi, ari, acc }
}

static PUBLISHED: [Published; 4] = [
    Published {
        name: "CIFAR-10",
        images: 60_000,
        classes: "airplane automobile bird cat deer dog frog horse ship truck",
        pixels: scores(0.087, 0.049, 0.229),
        backbone: [scores(0.725, 0.620, 0.800), scores(0.734, 0.635, 0.807)],
        feature: [scores(0.711, 0.624, 0.788), scores(0.706, 0.621, 0.782)],
    },
    Published {
        name: "CIFAR-100-20",
        images: 60_000,
        classes: "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices \
                  household_furniture insects large_carnivores large_man-made_outdoor_things \
                  large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals \
                  non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2",
        pixels: scores(0.084, 0.028, 0.130),
        backbone: [scores(0.462, 0.240, 0.418), scores(0.476, 0.231, 0.422)],
        feature: [scores(0.438, 0.249, 0.394), scores(0.446, 0.254, 0.416)],
    },
    Published {
        name: "STL-10",
        images: 13_000,
        classes: "airplane bird car cat deer dog horse monkey ship truck",
        pixels: scores(0.125, 0.061, 0.192),
        backbone: [scores(0.670, 0.523, 0.684), scores(0.687, 0.581, 0.758)],
        feature: [scores(0.687, 0.549, 0.702), scores(0.668, 0.572, 0.734)],
    },
    Published {
        name: "ImageNet-10",
        images: 13_000,
        classes: IMAGENET_10,
        pixels: scores(0.119, 0.057, 0.241),
        backbone: [scores(0.893, 0.858, 0.927), scores(0.885, 0.854, 0.934)],
        feature: [scores(0.898, 0.869, 0.932), scores(0.887, 0.861, 0.928)],
    },
];

/// What the paper says of this data set.
pub fn published(dataset: &Dataset) -> Option<Match> {
    find(dataset.classes(), dataset.len())
}

/// Known by the names of its classes, however they are spelt, and the number of its images.
fn find(classes: &[String], images: usize) -> Option<Match> {
    let own: Vec<String> = classes.iter().map(|name| plain(name)).collect();
    let found = PUBLISHED.iter().find(|published| {
        let mut classes = published.classes.split(' ');
        classes.clone().count() == own.len() && classes.all(|class| own.contains(&plain(class)))
    })?;
    Some(if images == found.images { Match::Same(found) } else { Match::Part(found) })
}

/// A class's name as folders and lists spell it.
fn plain(name: &str) -> String {
    name.to_lowercase().replace([' ', '-', ','], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_data_set_has_figures() {
        let names = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let cifar = names("airplane automobile bird cat deer dog frog horse ship truck");
        assert!(matches!(find(&cifar, 60_000), Some(Match::Same(p)) if p.backbone[1].nmi == 0.734));
        assert!(matches!(find(&cifar, 2_500), Some(Match::Part(p)) if p.name == "CIFAR-10"));
        let mut other = names("Truck Ship Monkey Horse Dog Deer Cat Car Bird Airplane");
        assert!(matches!(find(&other, 13_000), Some(Match::Same(p)) if p.feature[0].acc == 0.702));
        other[0] = "tractor".into();
        assert!(find(&other, 13_000).is_none() && find(&[], 60_000).is_none());
        let spelt = find(&PUBLISHED[1].classes.split(' ').map(|c| c.replace('_', " ")).collect::<Vec<_>>(), 60_000);
        assert!(matches!(spelt, Some(Match::Same(p)) if p.name == "CIFAR-100-20"));
        // Scores lie where scores can, and training beats pixels in all of them.
        for published in &PUBLISHED {
            for scores in published.backbone.iter().chain(&published.feature) {
                let least = published.pixels;
                assert!(scores.nmi > least.nmi && scores.ari > least.ari && scores.acc > least.acc && scores.acc < 1.0);
            }
        }
    }
}
