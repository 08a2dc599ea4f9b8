"""Builds the folder that travels: stripped binaries, scripts, reference tensors, pictures to train on."""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys

from . import photos

MANIFEST = "bundle.json"
LIMIT_MIB = 60
# What is built where it exists: (kind of target, name, name in bin/); besides, every test of the CUDA backend.
TARGETS = [
    ("test", "kernels", "test-kernels"),
    ("test", "golden", "test-golden"),
    ("bench", "kernels", "bench-kernels"),
    ("bench", "cuda_step", "bench-cuda_step"),
    ("bin", "disentangle", "disentangle"),
]
BACKEND_TESTS = ("cuda", "parity")
# The virtual GPU, for rehearsals alone: beside the tests it would take a missing driver's place.
REHEARSAL = "rehearsal"
# Each picture is packed so many times, there: 12 steps of 128 images, 6 of 256.
PICTURES, TIMES = 16, 96


def build(root, folder):
    """Returns the exit code."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MANIFEST).exists():
            print(f"{folder} holds something else; it is left alone", file=sys.stderr)
            return 1
        shutil.rmtree(folder)
    for part in ["bin", REHEARSAL]:
        (folder / part).mkdir(parents=True)
    executables, libraries, missing = compile_all(root)
    for name, path in executables.items():
        strip(path, folder / "bin" / name)
    for path in libraries:
        strip(path, folder / REHEARSAL / path.name)
    shutil.copytree(root / "benches" / "pytorch", folder / "pytorch", ignore=shutil.ignore_patterns("__pycache__", "*.json"))
    shutil.copytree(root / "tests" / "golden", folder / "tests" / "golden", ignore=shutil.ignore_patterns("*.rs"))
    shutil.copytree(root / "scripts" / "gpu_check", folder / "gpu_check", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(root / "scripts" / "gpu-check", folder / "gpu-check")
    photos.write(folder / "photos", PICTURES)
    write_manifest(root, folder, missing)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / (1 << 20)
    print(f"{folder}: {size:.1f} MiB" + "".join(f"\nnot built: {name} ({why})" for name, why in missing.items()))
    if size > LIMIT_MIB:
        print(f"that is more than {LIMIT_MIB} MiB", file=sys.stderr)
        return 1
    return 0


def cargo(root, *words):
    """What cargo says it made: messages of compiled artifacts."""
    command = ["cargo", "build", "--release", "--message-format=json-render-diagnostics", *words]
    lines = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [m for m in map(json.loads, lines) if m.get("reason") == "compiler-artifact"]


def compile_all(root):
    """Paths of executables by their names in bin/, of the virtual GPU's libraries, and why others are missing."""
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    packages = json.loads(subprocess.run(metadata, cwd=root, check=True, capture_output=True, text=True).stdout)["packages"]
    ours = next(p for p in packages if pathlib.Path(p["manifest_path"]).parent == root)
    there = {(kind, target["name"]) for target in ours["targets"] for kind in target["kind"]}
    backend = sorted(name for kind, name in there if kind == "test" and name.startswith(BACKEND_TESTS))
    targets = TARGETS + [("test", name, f"test-{name}") for name in backend]
    missing = {name: f"there is no {kind} {target}" for kind, target, name in targets if (kind, target) not in there}
    if not backend:
        missing["test-cuda"] = "there is no test of the CUDA backend"
    wanted = [target for target in targets if target[:2] in there]
    words = [word for kind, target, _ in wanted for word in (f"--{kind}", target)]
    made = cargo(root, "-p", ours["name"], *words)
    found = {
        (kind, message["target"]["name"]): pathlib.Path(message["executable"])
        for message in made
        if message.get("executable")
        for kind in message["target"]["kind"]
    }
    # The virtual GPU comes with the tests; stand-ins for libraries may have to be asked for.
    libraries = shared(made)
    have = {path.stem.removeprefix("lib") for path in libraries}
    more = [p["name"] for p in packages for t in p["targets"] if "cdylib" in t["kind"] and t["name"] not in have]
    if more:
        libraries += shared(cargo(root, "--lib", *(word for name in more for word in ("-p", name))))
    return {name: found[kind, target] for kind, target, name in wanted}, libraries, missing


def shared(messages):
    """The shared libraries of the workspace among what was made."""
    of_ours = [m for m in messages if "cdylib" in m["target"]["kind"] and m["target"]["name"].startswith("vgpu")]
    return [pathlib.Path(name) for message in of_ours for name in message["filenames"] if name.endswith(".so")]


def strip(source, target):
    subprocess.run(["strip", "-o", target, source], check=True)


def write_manifest(root, folder, missing):
    git = lambda *words: subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()  # noqa: E731
    files = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    manifest = {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "host": os.uname().machine,
        "images": PICTURES * TIMES,
        "missing": missing,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
