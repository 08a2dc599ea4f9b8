"""What gpu-check does: one function a section, each leaving rows."""

import json
import re
import shutil
import subprocess
import sys

from . import training
from .compare import kernels, pytorch_kernels, pytorch_step, step
from .session import Failed, Row, check

# compute-sanitizer runs kernels tens to hundreds of times slower: tests of large sizes are left out.
TOO_LARGE = ["many_samples", "more_logits_than_a_grid", "more_chunks_than_a_block"]
# Tools, and into how many processes their tests are dealt out: racecheck is several times slower than the others.
TOOLS = {"memcheck": 1, "racecheck": 5, "initcheck": 1, "synccheck": 1}
# Tests that bound the device's memory, which a real device's is not.
VIRTUAL_ALONE = "out_of_memory::"
SANITIZER_ERROR = 86


def device(session):
    """Which device, and what is at hand."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    try:
        smi = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
        text = smi.stdout.strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        text = ""
    date = subprocess.run(["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"], capture_output=True, text=True).stdout.strip()
    session.data["device"], session.data["date"] = text or "virtual GPU", date
    if not text and not session.tiny:
        raise Failed("nvidia-smi finds no device")
    session.add(Row("device", text.split(",")[0] or "virtual GPU", note=f"{text}; {date}"))
    trainer = session.binary("disentangle")
    info = check(session.run([trainer, "info"], 30), "disentangle info")
    session.data["info"] = info.output


def tests(session):
    """Every bundled test program, on the device."""
    names = {path.name for path in (session.folder / "bin").glob("test-*")}
    for name in sorted(names | {name for name in session.manifest["missing"] if name.startswith("test-")}):
        try:
            program = session.binary(name)
        except Failed as problem:
            session.add(Row("tests", name, "FAILED", note=str(problem)))
            continue
        summary(session, "tests", name.removeprefix("test-"), session.run([program, "--skip", VIRTUAL_ALONE], 120))


def summary(session, section, name, ended):
    """A row from what a test program printed."""
    found = re.search(r"(\d+) passed; (\d+) failed; (\d+) ignored", ended.output)
    if ended.timed_out or not found:
        why = f"not done after {ended.seconds:.0f} s" if ended.timed_out else f"ended with {ended.code}"
        session.add(Row(section, name, "FAILED", note=f"{why}: {ended.last()}"))
        return
    passed, failed, ignored = (int(number) for number in found.groups())
    broken = re.findall(r"^test (\S+) \.\.\. FAILED", ended.output, re.M)
    note = f"{ended.seconds:.0f} s" + (": " + ", ".join(broken) if broken else "")
    session.data.setdefault("failures", {})[f"{section} {name}"] = ended.output[-6000:] if failed else ""
    # What is ignored here was asked for, and there is a device: it counts as failed.
    bad = failed or ignored or ended.code or not passed
    status = "FAILED" if bad else "ok"
    session.add(Row(section, name, status, f"{passed} passed", note=f"{failed} failed, {ignored} ignored, {note}"))


def sanitizer(session):
    """The kernel tests under each tool of compute-sanitizer, all at once: the device has room."""
    program = session.binary("test-kernels")
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not tool:
        raise Failed("there is no compute-sanitizer")
    skips = [word for name in TOO_LARGE for word in ("--skip", name)]
    listed = check(session.run([program, "--list", *skips], 20), "the list of tests").output
    tests = re.findall(r"^(\S+): test$", listed, re.M)
    running = {}
    for name, parts in TOOLS.items():
        command = [tool, "--tool", name, "--error-exitcode", str(SANITIZER_ERROR), "--print-limit", "10", program]
        dealt = [["--exact", *tests[part::parts]] for part in range(parts)]
        running[name] = [session.start([*command, "--test-threads", "1", *some]) for some in dealt]
    for name, started in running.items():
        judge(session, name, [session.finish(part, 100) for part in started], len(tests))


def judge(session, name, parts, count):
    """A tool's findings are lines of its own. A run that was cut short has not shown what it should."""
    output = "\n".join(ended.output for ended in parts)
    done = len(re.findall(r"^test \S+ \.\.\. ok|\.\.\. ok$", output, re.M))
    lines = [line[10:].strip() for line in output.splitlines() if line.startswith("========= ")]
    findings = [line for line in lines if re.match(r"(Invalid|Error|Race|Uninitialized|Barrier|Warning|Program hit)", line)]
    totals = [line for line in lines if "SUMMARY" in line]
    session.data.setdefault("sanitizer", {})[name] = {"tests": done, "findings": findings[:20], "summary": totals}
    broken = [ended for ended in parts if not ended.timed_out and ended.code != 0]
    late = [ended.seconds for ended in parts if ended.timed_out]
    note = "; ".join(findings[:2]) or "; ".join(sorted(set(totals)))
    if late:
        note = f"cut short after {max(late):.0f} s; {note}"
    elif broken and not findings:
        note = f"ended with {broken[0].code}: {broken[0].last()}"
    clean = not findings and not broken and 0 < done == count
    session.add(Row("sanitizer", name, "ok" if clean else "FAILED", f"{done} of {count} tests", note=note))


def python_of(session):
    """A Python with PyTorch and torchvision."""
    for name in dict.fromkeys([sys.executable, "python3", "python"]):
        try:
            asked = subprocess.run([name, "-c", "import torch, torchvision"], capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        if asked.returncode == 0:
            return name
    raise Failed("there is no Python with torch and torchvision")


def script(session, name, limit, *arguments):
    """One of pytorch/*.py, a little inside of its limit; returns what it wrote."""
    out = session.scratch / f"{name}.json"
    budget = max(5, min(limit, session.left()) - 15)
    command = [python_of(session), session.folder / "pytorch" / f"{name}.py", "--out", out, "--budget", budget, *arguments]
    if session.tiny:
        command.append("--tiny")
    ended = session.run(command, limit)
    if not out.exists():
        check(ended, name)
        raise Failed(f"{name} wrote nothing: {ended.last()}")
    # What was measured before an end that came too soon is kept, and the end is a row.
    if ended.timed_out or ended.code:
        session.add(Row(f"pytorch {name}", "", "FAILED", note=f"ended with {ended.code} after {ended.seconds:.0f} s: {ended.last()}"))
    return json.loads(out.read_text())


# In the order of what matters most, should the time run out.
SECTIONS = {
    "device": device,
    "tests": tests,
    "step": step,
    "pipeline": training.pipeline,
    "determinism": training.determinism,
    "kernels": kernels,
    "sanitizer": sanitizer,
    "pytorch-step": lambda session: pytorch_step(session, script),
    "pytorch-kernels": lambda session: pytorch_kernels(session, script),
}
