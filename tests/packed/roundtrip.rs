//! What goes in comes out.

use disentangle::data::{Dataset, Encoding, GatherOptions, packed};

use crate::{images, open_source, pack, pictures, problems, refused};

fn jpeg() -> GatherOptions {
    GatherOptions { payload: Encoding::Jpeg, ..GatherOptions::default() }
}

#[test]
fn every_image_name_label_and_factor_comes_back() {
    let folder = pictures();
    let pictures = folder.path().to_str().unwrap().to_owned();
    for location in ["shapes:70", &pictures] {
        let whole = Dataset::load(open_source(location), &GatherOptions::default(), &|_, _| ()).unwrap();
        for options in [GatherOptions::default(), jpeg()] {
            let target = tempfile::tempdir().unwrap();
            let (catalog, path) = pack(location, &options, target.path()).unwrap();
            let packed = Dataset::open(&path).unwrap();
            assert_eq!(*packed.catalog(), catalog);
            assert_eq!(images(&packed).unwrap(), images(&whole).unwrap());
            assert_eq!((packed.classes(), packed.factors()), (whole.classes(), whole.factors()));
            assert_eq!(packed.fingerprint(), whole.fingerprint());
            assert_eq!((packed.excluded(), packed.describe()), (whole.excluded(), whole.describe()));
            for i in 0..whole.len() {
                assert_eq!((packed.name(i), packed.label(i)), (whole.name(i), whole.label(i)));
            }
            assert_eq!(problems(&path), [""; 0]);
            assert!(packed.check().is_ok());
        }
    }
}

#[test]
fn a_jpeg_keeps_its_bytes_and_others_are_raw() {
    let (folder, target) = (pictures(), tempfile::tempdir().unwrap());
    let (catalog, path) = pack(folder.path().to_str().unwrap(), &jpeg(), target.path()).unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!(catalog.samples.len(), 12);
    for (i, sample) in catalog.samples.iter().enumerate() {
        let original = std::fs::read(folder.path().join(catalog.name(i))).unwrap();
        let start = 4096 + sample.offset as usize;
        let kept = &file[start..start + sample.bytes as usize];
        if catalog.name(i).ends_with("jpg") {
            assert_eq!((sample.encoding(), kept), (Some(Encoding::Jpeg), &original[..]));
        } else {
            assert_eq!((sample.encoding(), kept.len()), (Some(Encoding::Raw), (sample.width * 40 * 3) as usize));
        }
    }
}

#[test]
fn larger_images_shrink_to_the_short_side() {
    let folder = pictures();
    for payload in [Encoding::Raw, Encoding::Jpeg] {
        let target = tempfile::tempdir().unwrap();
        let options = GatherOptions { payload, resize_short: Some(25), ..GatherOptions::default() };
        let (catalog, path) = pack(folder.path().to_str().unwrap(), &options, target.path()).unwrap();
        // 20 x 40 is small enough; 50 x 40 and 80 x 40 shrink by 25 / 40.
        let sizes: Vec<_> = (0..12).map(|i| catalog.samples[i].size()).collect();
        let expected = |i: usize| [(20, 40), (31, 25), (50, 25)][catalog.name(i)[5..7].parse::<usize>().unwrap() % 3];
        assert_eq!(sizes, (0..12).map(expected).collect::<Vec<_>>());
        assert_eq!(problems(&path), [""; 0]);
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let folder = pictures();
    for location in ["shapes:600", folder.path().to_str().unwrap()] {
        let pack_on = |threads| {
            let target = tempfile::tempdir().unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (_, path) = pool.install(|| pack(location, &jpeg(), target.path())).unwrap();
            std::fs::read(path).unwrap()
        };
        let one = pack_on(1);
        assert!([2, 3, 8].into_iter().all(|threads| pack_on(threads) == one), "{location}");
    }
}

#[test]
fn too_many_lost_images_pack_nothing() {
    let (folder, target) = (pictures(), tempfile::tempdir().unwrap());
    let location = folder.path().to_str().unwrap();
    let with = |max_bad| GatherOptions { max_bad, ..GatherOptions::default() };
    let error = refused(pack(location, &with(0.05), target.path()));
    assert!(error.contains("1 of 13 images cannot be used, more than max_bad = 5%"), "{error}");
    assert!(error.contains("cats/broken.jpg"), "{error}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "nothing is left behind");
    let (catalog, _) = pack(location, &with(0.1), target.path()).unwrap();
    assert_eq!((catalog.samples.len(), catalog.excluded.len()), (12, 1));
}

#[test]
fn a_packed_file_can_be_packed_again_and_joined() {
    let (folder, target) = (pictures(), tempfile::tempdir().unwrap());
    let (_, first) = pack(folder.path().to_str().unwrap(), &jpeg(), target.path()).unwrap();
    let again = tempfile::tempdir().unwrap();
    let (catalog, second) = pack(first.to_str().unwrap(), &GatherOptions::default(), again.path()).unwrap();
    let (first, second) = (Dataset::open(&first).unwrap(), Dataset::open(&second).unwrap());
    assert_eq!(images(&first).unwrap(), images(&second).unwrap());
    assert_eq!((catalog.fingerprint, &catalog.excluded[..]), (first.fingerprint(), first.excluded()));
}

#[test]
fn texts_with_control_characters_become_visible() {
    let (folder, target) = (pictures(), tempfile::tempdir().unwrap());
    let list = "cats/00.jpg,\x1b[31mred\ncats/02.jpg,plain\nmissing\x07.jpg,plain\n";
    std::fs::write(folder.path().join("list.csv"), list).unwrap();
    let location = folder.path().join("list.csv").display().to_string();
    let (_, path) = pack(&location, &GatherOptions::default(), target.path()).unwrap();
    let packed = Dataset::open(&path).unwrap();
    assert_eq!(packed.len(), 2);
    let texts = packed.classes().iter().chain(packed.excluded().iter().flat_map(|e| [&e.name, &e.reason]));
    texts.for_each(|text| assert!(!text.chars().any(char::is_control), "{text:?}"));
}

#[cfg(unix)]
#[test]
fn a_source_that_is_cut_short_while_it_is_packed_packs_nothing() {
    let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // 500 records of CIFAR-10; the last ones lie on pages that are gone when they are read.
    let record: Vec<u8> = std::iter::once(3).chain((0..3072).map(|i| i as u8)).collect();
    let path = folder.path().join("data_batch_1.bin");
    std::fs::write(&path, record.repeat(500)).unwrap();
    let source = open_source(folder.path().to_str().unwrap());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    let packed = packed::pack(&*source, &GatherOptions::default(), &target.path().join("images.pack"), &|_, _| ());
    let error = refused(packed);
    assert!(error.contains("data_batch_1.bin") && error.contains("cut short"), "{error}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}
