"""Sections that run the trainer: the full pipeline's throughput, and whether two runs end in the same weights."""

import json
import shutil
import statistics

from . import weights
from .session import Failed, Row, check
from .watch import Watch

# Share of a run's steps that count as warm-up.
WARM = 0.3


def device(session):
    """The device to train on. A rehearsal without a stand-in for cuDNN makes do with the CPU."""
    stand_in = (session.folder / "rehearsal" / "libvgpu_cudnn.so").exists()
    return "cpu" if session.tiny and not stand_in else "cuda"


def environment(session, kind):
    """Under the virtual GPU the unmodified trainer finds stand-ins for the driver and its libraries."""
    if not session.tiny or kind != "cuda":
        return session.environment()
    libraries = sorted((session.folder / "rehearsal").glob("libvgpu*.so"))
    return session.environment(LD_PRELOAD=":".join(str(path) for path in libraries))


def packed(session):
    """The bundle's pictures as decoded photographs in one packed file, so many times that there are epochs of several steps."""
    out = session.scratch / "photos.pack"
    if not out.exists():
        pictures = sorted((session.folder / "photos").iterdir())
        copies = session.scratch / "photos"
        for number in range(session.manifest["images"] // len(pictures)):
            shutil.copytree(session.folder / "photos", copies / str(number))
        check(session.run([session.binary("disentangle"), "pack", copies, out], 60), "disentangle pack")
    return out


def train(session, name, batch, epochs, limit):
    """A run of the trainer; returns its folder, its device, how it ended and what was seen meanwhile."""
    trainer = session.binary("disentangle")
    kind = device(session)
    out = session.scratch / name
    command = [trainer, "train", "--device", kind, "--out", out, "--seed", "42", "--epochs", epochs, "--batch-size", batch]
    if session.tiny:
        packed(session)  # rehearsed, but too large to train on here
        command += ["--data", "shapes:64", "--backbone", "resnet18", "--image-size", "32", "--set", "base_width=4"]
    else:
        command += ["--data", packed(session), "--preset", "paper"]
    # One checkpoint, at the end; k-means once.
    command += ["--set", "checkpoint_every=0", "--set", "eval.restarts=1", "--set", "report=false"]
    watch = Watch(out / "metrics.jsonl")
    try:
        ended = session.run(command, limit, environment(session, kind))
    finally:
        watch.stop()
    check(ended, "disentangle train")
    session.reports(name.split("-")[0], ended)
    return out, kind, ended, watch


def steps(run):
    """Records of steps with their times, in order."""
    metrics, timing = (
        [record for record in map(json.loads, (run / name).read_text().splitlines()) if record["kind"] == "step"]
        for name in ("metrics.jsonl", "timing.jsonl")
    )
    seconds = {record["step"]: record["seconds"] for record in timing}
    return [{**record, "seconds": seconds[record["step"]]} for record in metrics]


def pipeline(session):
    """Images from the packed file, augmented, to the device: views/s between the warm-up and the last step."""
    cases = [(8, 3)] if session.tiny else [(256, 30), (128, 12)]
    for batch, epochs in cases:
        case = f"resnet34 224 px batch {batch}" if not session.tiny else f"tiny batch {batch}"
        try:
            run, kind, _, watch = train(session, f"pipeline-{batch}", batch, epochs, 200 if session.tiny else 75)
        except Failed as problem:
            session.add(Row("pipeline", case, "FAILED", note=str(problem)))
            continue
        records = steps(run)
        records = records[int(WARM * len(records)) :]
        if len(records) < 3:
            raise Failed(f"only {len(records)} steps are in metrics.jsonl")
        elapsed = records[-1]["seconds"] - records[0]["seconds"]
        views = 2 * batch * (records[-1]["step"] - records[0]["step"]) / elapsed
        median = statistics.median(b["seconds"] - a["seconds"] for a, b in zip(records, records[1:]))
        idle, peak = watch.idle_share(WARM), watch.peak_mib()
        data = {"case": case, "device": kind, "views_per_s": views, "median_step_ms": 1e3 * median, "idle_share": idle,
                "peak_mib": peak, "steps": len(records), "loss": records[-1]["loss"]}
        alone = [s for s in session.data.get("step", []) if s.get("batch") == batch]
        if alone:
            data["share_of_step_alone"] = views / alone[0]["views_per_s"]
        session.data.setdefault("pipeline", []).append(data)
        note = [f"on {kind}", f"loss {records[-1]['loss']:.3f}"]
        note += [f"{100 * data['share_of_step_alone']:.0f} % of the step alone"] if alone else []
        note += [f"idle {100 * idle:.1f} %"] if idle is not None else []
        note += [f"{peak:.0f} MiB"] if peak is not None else []
        session.add(Row("pipeline", case, "ok", f"{views:.0f} views/s", note=", ".join(note)))


def determinism(session):
    """Two runs of 200 steps from the same seed end in the same weights."""
    batch, epochs = (8, 2) if session.tiny else (128, 200 // (session.manifest["images"] // 128))
    digests, counts = [], []
    for number in (1, 2):
        run, kind, _, _ = train(session, f"determinism-{number}", batch, epochs, 200 if session.tiny else 60)
        digests.append(weights.digest(weights.newest_checkpoint(run)))
        counts.append(steps(run)[-1]["step"])
    session.data["determinism"] = {"device": kind, "steps": counts, "weights": digests}
    same = digests[0] == digests[1] and counts[0] == counts[1]
    note = f"on {kind}, weights {digests[0][:16]}" + ("" if same else f" and {digests[1][:16]}")
    session.add(Row("determinism", f"two runs of {counts[0]} steps", "ok" if same else "FAILED", note=note))
