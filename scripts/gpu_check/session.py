"""One run of gpu-check: its folder, its time, and the rows that sections leave."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time


class Failed(Exception):
    """Why a section or a case failed, in words."""


@dataclasses.dataclass
class Row:
    """A line of the table. Numbers are for people: text with its unit."""

    check: str
    case: str
    status: str = "ok"
    ours: str = ""
    pytorch: str = ""
    ratio: str = ""
    note: str = ""


@dataclasses.dataclass
class Ended:
    """How a process ended."""

    code: int
    output: str
    seconds: float
    timed_out: bool

    def last(self, lines=3):
        """The end of what it said, for a note."""
        return " / ".join(line.strip() for line in self.output.strip().splitlines()[-lines:])[:300]


class Session:
    def __init__(self, folder, tiny, budget):
        self.folder, self.tiny, self.budget = folder, tiny, budget
        self.started = time.monotonic()
        self.manifest = json.loads((folder / "bundle.json").read_text())
        self.rows, self.data, self.seconds = [], {}, {}
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))

    def left(self):
        return self.budget - (time.monotonic() - self.started)

    def section(self, name, run):
        """Runs a section; whatever happens in it becomes rows."""
        print(f"== {name} ({self.left():.0f} s left)", flush=True)
        before, start = len(self.rows), time.monotonic()
        try:
            if self.left() < 3:
                raise Failed(f"no time left of {self.budget:.0f} s")
            run(self)
        except Failed as problem:
            self.add(Row(name, "", "FAILED", note=str(problem)))
        except Exception as problem:  # noqa: BLE001: a section that breaks must not take the others along
            self.add(Row(name, "", "FAILED", note=f"{type(problem).__name__}: {problem}"))
        if len(self.rows) == before:
            self.add(Row(name, "", "FAILED", note="the section said nothing"))
        self.seconds[name] = round(time.monotonic() - start, 1)

    def add(self, row):
        self.rows.append(row)
        print("   ", *(text for text in dataclasses.astuple(row) if text), flush=True)

    def binary(self, name):
        """Path of a program of the bundle."""
        path = self.folder / "bin" / name
        if not path.exists():
            raise Failed("not built: " + self.manifest["missing"].get(name, f"bin/{name} is missing"))
        return path

    def environment(self, **more):
        """For the bundle's programs."""
        env = {**os.environ, "REQUIRE_GPU": "1", "CARGO_MANIFEST_DIR": str(self.folder), "RUST_BACKTRACE": "0"}
        env["DISENTANGLE_CACHE"] = str(self.scratch / "cache")
        if self.tiny:
            libraries = self.folder / "rehearsal"
            env |= {"VGPU": "1", "VGPU_LIBRARY": str(libraries / "libvgpu.so")}
        return env | {name: str(value) for name, value in more.items()}

    def start(self, command, env=None, log=None):
        """A process in a group of its own, its output in a file."""
        log = log or self.scratch / f"{len(list(self.scratch.iterdir()))}.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=env or self.environment(), cwd=self.scratch, start_new_session=True,
            )
        return process, log, time.monotonic()

    def finish(self, started, limit):
        """Waits, at most `limit` seconds and what the budget leaves; then the whole group is ended."""
        process, log, start = started
        limit = max(1.0, min(limit, self.left()))
        timed_out = False
        try:
            process.wait(timeout=max(0.1, limit - (time.monotonic() - start)))
        except subprocess.TimeoutExpired:
            timed_out = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                continue
        process.wait()
        output = pathlib.Path(log).read_text(errors="replace")
        return Ended(process.returncode, output, time.monotonic() - start, timed_out)

    def reports(self, section, ended):
        """A row for what the virtual GPU found in a rehearsal, and one for calls that its libraries do not cover."""
        found = sorted({line.strip() for line in ended.output.splitlines() if line.startswith("vgpu:")})
        uncovered = [line for line in found if "not covered" in line]
        findings = [line for line in found if line not in uncovered]
        if findings:
            self.add(Row(section, "virtual GPU", "FAILED", note=f"{len(findings)} findings: {findings[0]}"))
        if uncovered:
            self.add(Row(section, "virtual GPU", note=f"{len(uncovered)} kinds of calls refused: {uncovered[0]}"))

    def run(self, command, limit, env=None):
        return self.finish(self.start(command, env), limit)


def check(ended, what):
    """Raises unless a process ended well."""
    if ended.timed_out:
        raise Failed(f"{what} was not done after {ended.seconds:.0f} s: {ended.last()}")
    if ended.code != 0:
        raise Failed(f"{what} ended with {ended.code}: {ended.last()}")
    return ended
