//! Training: what it leaves, and that it depends on the seed alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Folder, TINY};

#[test]
fn a_run_leaves_its_files_and_a_table() {
    let folder = Folder::new();
    let said = folder.run(&format!("{TINY} --epochs 2 --set eval.every=1 --out run"));
    assert_eq!(said.code, 0, "{}", said.err);
    let files = [
        "baselines.json",
        "checkpoint-epoch0001.safetensors",
        "checkpoint-epoch0002.safetensors",
        "config.toml",
        "metrics.jsonl",
        "results.json",
        "run.json",
        "run.lock",
        "timing.jsonl",
    ];
    assert_eq!(folder.names("run"), files);
    // The four rows, in order, each with three figures.
    let mut lines = said.out.lines().skip_while(|line| !line.starts_with("k-means, k = 10, 64 images"));
    assert!(lines.next().unwrap().ends_with("NMI    ARI    ACC"), "{}", said.out);
    for name in ["raw pixels", "untrained network", "backbone", "feature"] {
        let line = lines.next().unwrap();
        assert!(line.trim_start().starts_with(name), "{line}");
        let figures = line.split_whitespace().rev().take(3).map(|word| word.parse::<f64>().unwrap());
        assert!(figures.into_iter().all(|figure| (-1.0..=1.0).contains(&figure)), "{line}");
    }
    for part in ["the trivial solution", "run: run", "next:", "disentangle embed run --data shapes:64"] {
        assert!(said.out.contains(part), "no `{part}` in {}", said.out);
    }
    let weights = folder.json("run/results.json")["weights"].as_str().unwrap().to_owned();
    assert_eq!(said.out.lines().last(), Some(format!("weights {weights}").as_str()));
    assert_eq!(folder.checkpoint("run/checkpoint-epoch0002.safetensors").weights_hash(), weights);
    // 2 epochs of 4 steps, each followed by its epoch, a look for collapse and its evaluation.
    let metrics = folder.metrics("run");
    let kinds: Vec<&str> = metrics.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    let epoch = ["step", "step", "step", "step", "epoch", "collapse", "eval"];
    assert_eq!(kinds, [epoch, epoch].concat());
    let times = folder.lines("run", "timing.jsonl");
    let places = |line: &BTreeMap<String, Value>| (line["kind"].clone(), line["step"].clone());
    assert!(times.iter().map(places).eq(metrics.iter().map(places)), "{times:?}");
    let seconds: Vec<f64> = times.iter().map(|line| line["seconds"].as_f64().unwrap()).collect();
    assert!(seconds[0] > 0.0 && seconds.is_sorted(), "{seconds:?}");
    let numbers = |key: &str, kind: &str| -> Vec<u64> {
        metrics.iter().filter(|line| line["kind"] == kind).map(|line| line[key].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("step", "step"), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((numbers("epoch", "epoch"), numbers("epoch", "eval")), (vec![1, 2], vec![1, 2]));
    // An epoch's losses are the means of its steps, and the total is made of its parts.
    let loss = |line: usize, key: &str| metrics[line][key].as_f64().unwrap();
    for key in ["loss", "loss_instance", "loss_feature", "entropy"] {
        let mean = (0..4).map(|line| loss(line, key)).sum::<f64>() / 4.0;
        assert!((loss(4, key) - mean).abs() < 1e-12 * mean.abs(), "{key}");
    }
    // Single precision's sum of three numbers below 4.
    let total = loss(0, "loss_instance") + loss(0, "loss_feature") - loss(0, "entropy");
    assert!((loss(0, "loss") - total).abs() < 2e-6);
    // The cosine to 0 over two epochs.
    assert_eq!((loss(0, "learning_rate"), loss(7, "learning_rate")), (1e-3, 0.5e-3));
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --out a --threads 1"));
    folder.done(&format!("{TINY} --epochs 2 --out b --threads 2"));
    folder.done(&format!("{TINY} --epochs 2 --out c --threads 5 --set cache_mib=0"));
    for other in ["b", "c"] {
        for epoch in 1..=2 {
            let name = format!("checkpoint-epoch000{epoch}.safetensors");
            let (ours, theirs) = (format!("a/{name}"), format!("{other}/{name}"));
            // What the bytes say first, for a message that helps.
            assert!(folder.checkpoint(&ours).tensors == folder.checkpoint(&theirs).tensors, "{theirs}");
            if other == "b" {
                assert!(folder.read(&ours) == folder.read(&theirs), "{theirs}");
            }
        }
        for name in ["metrics.jsonl", "results.json", "baselines.json", "run.json"] {
            assert!(folder.read(&format!("a/{name}")) == folder.read(&format!("{other}/{name}")), "{other}/{name}");
        }
    }
    folder.done(&format!("{TINY} --epochs 2 --out d --seed 43"));
    let last = |run: &str| folder.checkpoint(&format!("{run}/checkpoint-epoch0002.safetensors"));
    assert_ne!(last("a").tensors, last("d").tensors);
    assert_ne!(folder.metrics("a")[0], folder.metrics("d")[0]);
}

#[test]
fn a_checkpoint_holds_what_torchvision_expects() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let checkpoint = folder.checkpoint("run/checkpoint-epoch0001.safetensors");
    let shape = |name: &str| checkpoint.tensor(name).map(|tensor| tensor.shape.clone());
    for (name, expected) in [
        ("backbone.conv1.weight", vec![4, 3, 7, 7]),
        ("backbone.bn1.running_var", vec![4]),
        ("backbone.layer1.0.conv1.weight", vec![4, 4, 3, 3]),
        ("backbone.layer2.0.downsample.0.weight", vec![8, 4, 1, 1]),
        ("backbone.layer4.1.bn2.weight", vec![32]),
        ("instance_projector.0.weight", vec![32, 32]),
        ("instance_projector.3.bias", vec![16]),
        ("feature_predictor.0.weight", vec![32, 16]),
        ("feature_predictor.3.weight", vec![16, 32]),
        ("feature_predictor.4.running_mean", vec![16]),
        ("optimizer.exp_avg_sq.backbone.conv1.weight", vec![4, 3, 7, 7]),
    ] {
        assert_eq!(shape(name), Some(expected), "{name}");
    }
    assert_eq!(shape("optimizer.exp_avg.backbone.bn1.running_mean"), None, "statistics are not optimised");
    assert_eq!(shape("feature_predictor.3.bias"), None);
    let meta = &checkpoint.meta;
    assert_eq!((meta.epoch, meta.step, meta.step_in_epoch, meta.data.images), (1, 4, 0, 64));
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = Folder::new();
    let text = folder.done(&format!("{TINY} --epochs 2 --out run --dry-run"));
    assert!(folder.names(".").is_empty());
    for part in [
        "base_width = 4",
        "procedural shapes, 64 images",
        "# parameters  47508",
        "# steps       8",
        "# memory",
        "# time",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // What it prints is a configuration file.
    folder.write("again.toml", &text);
    assert_eq!(folder.done("train --config again.toml --dry-run").lines().next(), text.lines().next());
    // And in full size: torchvision's ResNet-18 without fc has 11,176,512; the heads add
    // 512 * 512 + 2 * 512 + 512 * 128 + 128 and 128 * 512 + 2 * 512 + 512 * 128 + 2 * 128.
    let text = folder.done("train --data shapes --backbone resnet18 --set base_width=64 --dry-run");
    assert!(text.contains(&format!("# parameters  {} (11.6 M)", 11_176_512 + 328_832 + 132_352)), "{text}");
    assert!(folder.names(".") == ["again.toml"]);
}

#[test]
fn runs_without_a_folder_get_new_ones() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1"));
    folder.done(&format!("{TINY} --epochs 1"));
    assert_eq!(folder.names("runs"), ["shapes", "shapes-2"]);
    // Resuming without a folder takes the newest run, which has nothing left to do but say how it ended.
    let said = folder.run("train --resume");
    assert!(said.code == 0 && said.err.contains("runs/shapes-2"), "{}", said.err);
}

#[test]
fn help_and_info() {
    let folder = Folder::new();
    for (words, parts) in [
        ("--help", vec!["train", "eval", "embed", "info", "Exit codes: 0 done, 1 failed, 2 bad usage"]),
        (
            "train --help",
            vec!["--data", "--preset", "--resume", "--set", "--dry-run", "temperature_instance", "paper-stl10"],
        ),
        ("eval --help", vec!["RUN_OR_CHECKPOINT", "--clusters", "--json", "NMI"]),
        ("embed --help", vec!["CHECKPOINT", "h.npy", "--out", "float32"]),
        ("info --help", vec!["Usage"]),
        ("info", vec![env!("CARGO_PKG_VERSION"), "cores", "memory", "cuda", "cifar100-20"]),
        ("--version", vec![env!("CARGO_PKG_VERSION")]),
    ] {
        let text = folder.done(words);
        parts.iter().for_each(|part| assert!(text.contains(part), "{words}: no `{part}` in {text}"));
    }
    let none = folder.run("");
    assert!(none.code == 2 && none.err.contains("Usage"), "{none:?}");
    assert!(folder.names(".").is_empty());
}
