//! The configuration: layers, messages, file form.

use disentangle::config::{CheckpointEvery, Config, Overrides, presets};
use disentangle::data::augment::AugmentConfig;
use disentangle::nn::Backbone;
use disentangle::optim::schedule::Schedule;
use toml::Value;

/// Resolves `file` (as `run.toml`) and `--set` texts, with data given unless they say otherwise.
fn resolve(file: &str, set: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, file).unwrap();
    let set = set.iter().map(|s| s.to_string()).collect();
    let overrides = Overrides { file: Some(path), set, ..Overrides::default() };
    let in_folder = format!("{}/", folder.path().display());
    overrides.resolve().map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string().replace(&in_folder, "")
    })
}

/// The error message of [`resolve`].
fn problem(file: &str, set: &[&str]) -> String {
    resolve(file, set).expect_err("should be refused")
}

#[test]
fn the_reference_holds_every_key_and_the_defaults_of_the_augmentation() {
    let defaults = Config::default();
    assert_eq!(defaults.augment, AugmentConfig::default());
    assert_eq!(Config::reference().parse::<toml::Table>().unwrap(), toml::Table::try_from(&defaults).unwrap());
    // Every key is explained, in a line that `--help` does not wrap.
    for line in Config::reference().lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
        assert!(line.contains(" # ") && line.len() <= 100, "{line}");
    }
}

#[test]
fn every_preset_resolves_and_the_paper_is_quoted_right() {
    for preset in presets() {
        let set = [format!("preset={}", preset.name), "data=x".to_string()];
        let config = Overrides { set: set.into(), ..Overrides::default() }.resolve().unwrap();
        assert_eq!(config.preset, preset.name);
        if let Some(which) = preset.name.strip_prefix("paper-") {
            // Section 4 of the paper; d = K = batch size.
            let batch = if which.ends_with("256") { 256 } else { 128 };
            assert_eq!((config.backbone, config.image_size, config.epochs), (Backbone::ResNet34, 224, 1000));
            assert_eq!((config.batch_size, config.projection_dim(), config.feature_num()), (batch, batch, batch));
            assert_eq!((config.learning_rate, config.clip_norm, config.schedule), (3e-4, 1.0, Schedule::Cosine));
            assert_eq!((config.alpha, config.temperature_instance, config.temperature_feature), (1.0, 0.5, 1.0));
            assert_eq!((config.base_width, config.weight_decay, config.seed), (64, 0.0, 42));
            let strength = if which.starts_with("cifar") { 0.5 } else { 1.0 };
            let blur = if which.starts_with("imagenet") { 0.5 } else { 0.0 };
            let expected = AugmentConfig { jitter_strength: strength, blur, ..AugmentConfig::default() };
            assert_eq!(config.augment, expected);
        }
    }
    let names: Vec<_> = presets().iter().map(|preset| preset.name.as_str()).collect();
    for base in ["cifar10", "cifar100-20", "stl10", "imagenet10"] {
        let all = [base.to_string(), format!("paper-{base}-128"), format!("paper-{base}-256")];
        assert!(all.iter().all(|name| names.contains(&name.as_str())), "{base}");
    }
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "preset = 'paper'\nepochs = 5\nseed = 1\nbatch_size = 64\n[augment]\nblur = 0.25\n").unwrap();
    let overrides = Overrides {
        file: Some(file),
        options: vec![("data", Value::from(vec!["a", "b"])), ("epochs", Value::from(7)), ("seed", Value::from(2))],
        set: vec!["seed=3".into(), "projection_dim=32".into()],
    };
    let config = overrides.resolve().unwrap();
    assert_eq!((config.preset.as_str(), config.backbone, config.image_size), ("paper", Backbone::ResNet34, 224));
    assert_eq!((config.batch_size, config.epochs, config.seed), (64, 7, 3));
    assert_eq!((config.augment.blur, config.augment.hflip), (0.25, 0.5));
    assert_eq!(config.data, ["a", "b"]);
    assert_eq!((config.projection_dim(), config.feature_num()), (32, 64));

    // A resumed run starts from what was saved; 0 takes a value back to "as the batch size".
    let set = vec!["epochs=9".into(), "projection_dim=0".into()];
    let resumed = Overrides { set, ..Overrides::default() }.resolve_over(&config).unwrap();
    assert_eq!((resumed.projection_dim, resumed.batch_size, resumed.seed), (None, 64, 3));
    let keys: Vec<_> = config.diff(&resumed).into_iter().map(|d| (d.key, d.mine, d.theirs)).collect();
    let expected = [("projection_dim", "32", "0"), ("epochs", "7", "9")];
    assert_eq!(keys, expected.map(|(key, mine, theirs)| (key.into(), mine.into(), theirs.into())));
}

#[test]
fn the_preset_follows_the_data_when_none_is_named() {
    let preset = |set: &[&str]| resolve("", set).unwrap().preset;
    assert_eq!(preset(&[]), "shapes");
    assert_eq!(preset(&["data=shapes"]), "shapes");
    assert_eq!(preset(&["data=shapes:2000"]), "shapes");
    assert_eq!(preset(&["data=/some/folder"]), "images");
    assert_eq!(preset(&["data=['shapes', 'more.tar']"]), "images");
    assert_eq!(resolve("data = 'x.tar'", &["preset=cifar10"]).unwrap().preset, "cifar10");
    assert!(problem("", &["preset=cifar10"]).starts_with("no data to work on: give --data"));
}

#[test]
fn set_takes_toml_bare_words_and_last_parts_of_keys() {
    let config = resolve("", &["jitter_strength=1", "augment.blur = 0.5", "backbone=50", "clusters=7", "out=my run"]);
    let config = config.unwrap();
    assert_eq!((config.augment.jitter_strength, config.augment.blur), (1.0, 0.5));
    assert_eq!((config.backbone, config.eval.clusters, config.out.as_str()), (Backbone::ResNet50, Some(7), "my run"));
    let classes = |file: &str, set: &[&str]| resolve(file, set).unwrap().classes;
    assert_eq!(classes("classes = ['tench, Tinca tinca']", &["seed=1"]), ["tench, Tinca tinca"]);
    assert_eq!(classes("classes = 'imagenet-10'", &["seed=1"]), ["imagenet-10"]);
    assert_eq!(classes("classes = 'cat'", &["classes=dog, @more.txt"]), ["dog", "@more.txt"]);
    assert!(classes("classes = 'cat'", &["classes=[]"]).is_empty());
    let config = resolve("backbone = 34", &["crop_scale=[0.2, 1]", "cache_mib=1e3", "seed=7"]).unwrap();
    assert_eq!((config.backbone, config.augment.crop_scale), (Backbone::ResNet34, [0.2, 1.0]));
    assert_eq!((config.cache_mib, config.seed, config.eval.seed), (1000, 7, 42));
}

#[test]
fn unknown_keys_are_named_with_the_nearest_right_one() {
    for (file, set, expected) in [
        (
            "temprature_instance = 1.0",
            "seed=1",
            "unknown key 'temprature_instance' in run.toml: did you mean 'temperature_instance'?",
        ),
        ("[augment]\nhflpi = 1.0", "seed=1", "unknown key 'augment.hflpi' in run.toml: did you mean 'augment.hflip'?"),
        (
            "jitter_strength = 1.0",
            "seed=1",
            "unknown key 'jitter_strength' in run.toml: did you mean 'augment.jitter_strength'?",
        ),
        ("", "lr=0.1", "unknown key 'lr' in --set: did you mean 'learning_rate'?"),
        (
            "",
            "temperature=0.1",
            "unknown key 'temperature' in --set: did you mean 'temperature_instance' or 'temperature_feature'?",
        ),
        ("", "epoch.s=0.1", "unknown key 'epoch.s' in --set: did you mean 'epochs'?"),
        ("", "zzzz=1", "unknown key 'zzzz' in --set"),
        ("[extra]", "seed=1", "unknown key 'extra' in run.toml"),
        ("[epochs]\nx = 1", "seed=1", "unknown key 'epochs.x' in run.toml: did you mean 'epochs'?"),
    ] {
        assert_eq!(problem(file, &[set]), expected);
    }
    let message = problem("", &["preset=cifar-10"]);
    assert!(message.starts_with("unknown preset 'cifar-10': did you mean 'cifar10'? (presets: shapes, "), "{message}");
}

#[test]
fn a_key_of_any_depth_is_unknown_in_words() {
    let deep = "a.".repeat(30_000) + "b=1";
    assert!(problem("", &[&deep]).starts_with("unknown key 'a.a.a."));
    assert!(problem(&deep, &[]).contains("recursion limit"));
    assert_eq!(resolve("", &["augment = { blur = 0.25 }"]).unwrap().augment.blur, 0.25);
}

#[test]
fn wrong_types_say_what_was_expected_and_got() {
    for (file, set, expected) in [
        ("epochs = 'many'", "seed=1", "run.toml: epochs = \"many\": expected a whole number, 0 or more, got a string"),
        ("", "epochs=2.5", "--set: epochs = 2.5: expected a whole number, 0 or more, got a number with a fraction"),
        ("", "batch_size=-3", "--set: batch_size = -3: expected a whole number, 0 or more, got a negative number"),
        ("", "alpha=high", "--set: alpha = \"high\": expected a number, got a string"),
        ("augment = 3", "seed=1", "run.toml: augment = 3: expected a table of keys, got a whole number"),
        (
            "data = 3.5",
            "seed=1",
            "run.toml: data = 3.5: expected a string or a list of strings, got a number with a fraction",
        ),
        ("", "data=[1]", "--set: data = [1]: expected a string or a list of strings"),
        ("", "backbone=vgg", "--set: backbone = \"vgg\": expected one of resnet18, resnet34, resnet50"),
        ("", "stem=Cifar", "--set: stem = \"Cifar\": expected one of imagenet, cifar"),
        ("", "order=quick", "--set: augment.order = \"quick\": expected one of exact, fast"),
        ("", "seed", "--set seed: expected key=value, such as --set jitter_strength=1.0"),
        ("epochs = 3\nseed = = 4", "seed=1", "run.toml, line 2: "),
        ("epochs = 3\nepochs = 4", "seed=1", "run.toml, line 2: duplicate key"),
    ] {
        let message = problem(file, &[set]);
        assert!(message.starts_with(expected) && !message.contains('\n'), "{message}\n{expected}");
    }
    let message = problem("", &["crop_scale=[1]"]);
    assert!(message.starts_with("--set: augment.crop_scale = [1]: ") && message.contains("length 2"), "{message}");
}

#[test]
fn values_out_of_range_name_key_value_and_range() {
    for set in [
        "image_size=7",
        "image_size=4096",
        "batch_size=1",
        "epochs=0",
        "learning_rate=0",
        "learning_rate=nan",
        "beta1=1",
        "beta2=1.5",
        "adam_eps=0",
        "weight_decay=2",
        "clip_norm=inf",
        "clip_norm=-1",
        "alpha=-0.5",
        "temperature_instance=0",
        "temperature_feature=-1",
        "base_width=0",
        "projection_dim=1",
        "feature_num=1",
        "threads=5000",
        "log_every=0",
        "eval.clusters=1",
        "eval.restarts=0",
        "hflip=1.5",
    ] {
        let (key, value) = set.split_once('=').unwrap();
        let message = problem("", &[set]).to_lowercase();
        let value = value.trim_start_matches('-').replace(".0", "");
        assert!(message.contains(key) && message.contains(&value) && message.contains(": must "), "{message}");
    }
    assert!(problem("data = []", &[]).starts_with("no data to work on"));
    assert!(problem("data = ''", &[]).starts_with("no data to work on"));
}

#[test]
fn a_configuration_survives_its_file_form() {
    for preset in presets() {
        let set = [
            &format!("preset={}", preset.name),
            r#"data=["a # b", 'c" = d', "é"]"#,
            "adam_eps=1.2345678901234567e-9",
            "clusters=12",
            "projection_dim=10",
            "seed=9223372036854775807",
            "learning_rate=0.1",
        ];
        let config = resolve("", &set).unwrap();
        let text = config.to_toml();
        assert_eq!(Config::from_toml(&text, "config.toml").unwrap(), config, "{text}");
        // As a --config file it is the whole truth, whatever preset it started from.
        assert_eq!(resolve(&text, &[]).unwrap(), config);
        assert_eq!(config.diff(&config), []);
    }
    assert_eq!(resolve("", &[]).unwrap().to_toml().lines().count(), Config::reference().lines().count());
}

#[test]
fn an_older_file_gets_the_defaults_of_newer_keys() {
    let config = Config::from_toml("data = 'shapes'\nepochs = 3", "config.toml").unwrap();
    assert_eq!((config.epochs, config.eval.restarts), (3, 10));
    let error = Config::from_toml("future_key = 3", "config.toml").unwrap_err().to_string();
    assert!(error.starts_with("unknown key 'future_key' in config.toml"), "{error}");
}

#[test]
fn checkpoints_by_epochs_steps_and_time() {
    let every = |file: &str, set: &str| resolve(file, &[set]).unwrap().checkpoint_every;
    let expected = CheckpointEvery { epochs: 1, steps: 500, seconds: 600 };
    assert_eq!(every("checkpoint_every = '1epoch,500steps,10m'", "seed=1"), expected);
    // As files and commands had it before.
    assert_eq!(every("checkpoint_every = 3", "seed=1"), CheckpointEvery { epochs: 3, ..Default::default() });
    assert_eq!(every("", "checkpoint_every=0"), "end".parse().unwrap());
    assert_eq!(every("", "checkpoint_every=5steps,1h"), "1h,5steps".parse().unwrap());
    let message = problem("", &["checkpoint_every=10minutes"]);
    assert!(message.starts_with("--set: checkpoint_every = \"10minutes\": '10minutes': expected a list"), "{message}");
    assert!(problem("", &["checkpoint_every=-1"]).contains("checkpoint_every"));
}

#[test]
fn options_and_set_name_keys() {
    let overrides = Overrides {
        options: vec![("epochs", Value::from(3))],
        set: vec!["learning_rate = 0.1".into(), "blur=0.5".into()],
        ..Overrides::default()
    };
    let named = ["epochs", "learning_rate", "augment.blur", "seed"].map(|key| overrides.names(key));
    assert_eq!(named, [true, true, true, false]);
}

#[test]
fn only_some_differences_change_the_training() {
    let config = resolve("", &[]).unwrap();
    let other = Config { threads: 2, epochs: 3, keep: 9, ..config.clone() };
    let changes: Vec<_> = config.diff(&other).iter().map(|d| (d.key.clone(), d.changes_training())).collect();
    assert_eq!(changes, [("epochs".into(), true), ("threads".into(), false), ("keep".into(), false)]);
}
