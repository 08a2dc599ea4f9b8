"""What the scripts of this folder share: device time between events, a time budget, results that survive a failing case."""

import json
import platform
import statistics
import subprocess
import time

import torch

# Several times any L2 cache.
FLUSHED_BYTES = 256 << 20


class Clock:
    """Device time. On a CPU, where cases are only rehearsed, the host's."""

    def __init__(self, device):
        self.cuda = device == "cuda"
        self.flushed = torch.empty(FLUSHED_BYTES if self.cuda else 1024, dtype=torch.int8, device=device)

    def synchronise(self):
        if self.cuda:
            torch.cuda.synchronize()

    def flush(self):
        """Writes more than the L2 cache holds, then reads it, so that nothing is left to be written back."""
        self.flushed.zero_()
        self.flushed.view(torch.int32).amax()

    def launches(self, work, times, head_start=True):
        """Seconds of each of `times` calls, the cache flushed before each.

        With a head start the device waits about a millisecond before the first event, so that all launches are queued
        by then and none waits for the host: what is measured is the kernels, not Python.
        """
        pairs, seconds = [], []
        for _ in range(times):
            self.flush()
            if self.cuda:
                if head_start:
                    torch.cuda._sleep(2_000_000)  # clock cycles
                pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                pair[0].record()
                work()
                pair[1].record()
                pairs.append(pair)
            else:
                start = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - start)
        self.synchronise()
        return seconds + [start.elapsed_time(end) * 1e-3 for start, end in pairs]

    def steady(self, step, times):
        """Seconds of each of `times` steps, one behind the other: from the end of one to the end of the next."""
        if not self.cuda:
            marks = [time.perf_counter()]
            for _ in range(times):
                step()
                marks.append(time.perf_counter())
            return [b - a for a, b in zip(marks, marks[1:])]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        torch.cuda.synchronize()
        events[0].record()
        for event in events[1:]:
            step()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) * 1e-3 for a, b in zip(events, events[1:])]


def summary(seconds):
    """Median and range, in microseconds."""
    us = [1e6 * s for s in seconds]
    return {"microseconds": statistics.median(us), "min_us": min(us), "max_us": max(us), "measured": len(us)}


class Results:
    """Rows in a JSON file that is written after each, within a budget of seconds."""

    def __init__(self, path, budget, device):
        self.path, self.budget, self.device, self.start = path, budget, device, time.monotonic()
        self.json = {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
            "driver": driver(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rows": [],
        }

    def left(self):
        """Seconds of the budget."""
        return self.budget - (time.monotonic() - self.start)

    def add(self, names, run, needs):
        """Runs a case that takes about `needs` seconds and keeps what it returns; a failure becomes a row as well."""
        row = dict(names)
        if self.left() < needs:
            row["failed"] = f"left out: {self.left():.0f} s of the budget are left, {needs} are needed"
        else:
            started = time.monotonic()
            try:
                row.update(run())
            except Exception as problem:  # noqa: BLE001: one case that fails must not take the others along
                row["failed"] = f"{type(problem).__name__}: {str(problem).strip()[:300]}"
            row["wall_s"] = round(time.monotonic() - started, 1)
        self.json["rows"].append(row)
        self.save()
        print(json.dumps(row), flush=True)
        return row

    def save(self):
        with open(self.path, "w") as file:
            json.dump(self.json, file, indent=1)


def driver():
    """The driver's version, if nvidia-smi tells it."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def device(tiny):
    """"cuda", or "cpu" for a rehearsal."""
    if torch.cuda.is_available():
        return "cuda"
    if not tiny:
        raise SystemExit("there is no GPU: only --tiny runs here")
    return "cpu"
