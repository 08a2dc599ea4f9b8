//! Words that mean nothing: locations, parts, classes.

use disentangle::data::SourceOptions;
use disentangle::data::source::Split;

use crate::inputs::{good, npy, write};
use crate::{Case, Ends, Input};

pub fn cases() -> Vec<Case> {
    [locations(), parts(), classes()].into_iter().flatten().collect()
}

fn locations() -> Vec<Case> {
    let refused = |location: &'static str, says| {
        Case::made(format!("location `{}`", location.escape_default()), Ends::Refused(says), move |_| {
            Input::of(location)
        })
    };
    let mut cases = vec![
        refused("absent", &["absent does not exist"]),
        refused("absent/../x", &["does not exist"]),
        refused("with\0nul", &["NUL"]),
        refused("shapes:", &["is not a number of images"]),
        refused("shapes:many", &["is not a number of images"]),
        refused("shapes:-1", &["is not a number of images"]),
        refused("shapes:0", &["ask for 1 to"]),
        refused("shapes:18446744073709551615", &["ask for 1 to"]),
        refused("shapes:99999999999999999999", &["is not a number of images"]),
    ];
    cases.push(Case::made("no location", Ends::Refused(&["no data: give --data"]), |_| Input {
        locations: Vec::new(),
        options: SourceOptions::default(),
    }));
    cases.push(Case::made("one location of two is bad", Ends::Refused(&["absent does not exist"]), |root| {
        write(root, "a/good.png", good());
        Input { locations: vec!["a".into(), "absent".into()], options: SourceOptions::default() }
    }));
    cases
}

fn parts() -> Vec<Case> {
    let split = |split: Split| SourceOptions { split, ..Default::default() };
    let refused = |name: &str, file: &str, bytes: Vec<u8>, open: &str, part: Split, says| {
        Case::files(format!("part: {name}"), vec![(file.into(), bytes)], open, Ends::Refused(says)).with(split(part))
    };
    let no_parts: &[&str] = &["has no train and test parts"];
    vec![
        refused("test of a list", "l.txt", b"x".to_vec(), "l.txt", Split::Test, no_parts),
        refused("test of an array", "x.npy", npy("|u1", "(1, 2, 2)", &[0; 4]), "x.npy", Split::Test, no_parts),
        refused("test of a folder", "x.png", good(), "", Split::Test, &["no train and test folders"]),
        refused("unlabelled of a folder", "train/x.png", good(), "", Split::Unlabeled, &["no unlabelled part"]),
        refused("test of train alone", "train/x.png", good(), "", Split::Test, &["no images in that split"]),
        refused("unlabelled of CIFAR", "train.bin", vec![0; 3074], "", Split::TrainUnlabeled, &["no unlabelled part"]),
        refused("test of CIFAR without", "train.bin", vec![0; 3074], "", Split::Test, &["no CIFAR record"]),
        refused(
            "unlabelled of STL-10 without",
            "train_X.bin",
            vec![0; 27648],
            "",
            Split::Unlabeled,
            &["has no unlabeled_X"],
        ),
        Case::made("part: test of shapes", Ends::Refused(no_parts), |_| Input::of("shapes:9")).with(split(Split::Test)),
    ]
}

fn classes() -> Vec<Case> {
    /// Two classes, a file that lists some, and what is to be taken.
    fn refused(
        name: &str,
        file: &'static [u8],
        wanted: &'static [&'static str],
        says: &'static [&'static str],
    ) -> Case {
        Case::made(format!("classes: {name}"), Ends::Refused(says), move |root| {
            write(root, "cat/good.png", good());
            write(root, "dog/good.png", good());
            write(root, ".list", file);
            let list = root.join(".list").to_str().expect("UTF-8").to_owned();
            let classes = wanted.iter().map(|name| name.replace("@LIST", &format!("@{list}"))).collect();
            Input { locations: vec![String::new()], options: SourceOptions { classes, ..Default::default() } }
        })
    }
    vec![
        refused("one that is not there", b"", &["cat", "bird"], &["no class 'bird'", "there are cat, dog"]),
        refused("one nearly there", b"", &["cats"], &["did you mean 'cat'?"]),
        refused("in other letters", b"", &["CAT"], &["no class 'CAT'"]),
        refused("a path", b"", &["../cat"], &["no class '../cat'"]),
        refused("ImageNet's", b"", &["imagenet-10"], &["no class 'n02056570' (and 9 classes more)"]),
        refused("a file of no bytes", b"", &["@LIST"], &["names no class"]),
        refused("a file of comments", b"# cat\n\n", &["@LIST"], &["names no class"]),
        refused("a file of noise", &[0xff; 99], &["@LIST"], &["not UTF-8 text"]),
        refused("a file with a missing class", b"cat\nbird # no\n", &["@LIST"], &["no class 'bird # no'"]),
        refused("a file that is not there", b"", &["@LIST.absent"], &["cannot be read"]),
        refused("a file that is a folder", b"", &["@/"], &["is no list of classes"]),
        refused("a file that never ends", b"", &["@/dev/zero"], &["is no list of classes"]),
        Case::made("classes: of unlabelled images", Ends::Refused(&["has no classes to choose from"]), |root| {
            write(root, "good.png", good());
            Input::of("")
        })
        .with(SourceOptions { classes: vec!["cat".into()], ..Default::default() }),
    ]
}
