"""What the device did while something ran: nvidia-smi's samples, and when a file grew."""

import pathlib
import shutil
import subprocess
import threading
import time


class Watch:
    """Samples until stopped. `grown` are the times at which the watched file was seen to grow."""

    def __init__(self, file=None):
        self.file, self.grown, self.samples = file and pathlib.Path(file), [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._poll, daemon=True)] if file else []
        self._smi = None
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-i", "0", "-lms", "100"]
            self._smi = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._threads.append(threading.Thread(target=self._read, daemon=True))
        for thread in self._threads:
            thread.start()

    def _read(self):
        for line in self._smi.stdout:
            try:
                utilisation, mib = (float(word) for word in line.split(","))
            except ValueError:
                continue  # "[N/A]" where a device does not tell
            self.samples.append((time.monotonic(), utilisation, mib))

    def _poll(self):
        size = 0
        while not self._stop.wait(0.05):
            now = self.file.stat().st_size if self.file.exists() else 0
            if now > size:
                self.grown.append(time.monotonic())
            size = now

    def stop(self):
        self._stop.set()
        if self._smi:
            self._smi.terminate()
            self._smi.wait()
        for thread in self._threads:
            thread.join(timeout=2)

    def idle_share(self, skip):
        """Share of time without a kernel, from `skip` of the file's growth on to its end; None if nobody knows."""
        if len(self.grown) < 3:
            return None
        first, last = self.grown[0], self.grown[-1]
        first += skip * (last - first)
        inside = [utilisation for when, utilisation, _ in self.samples if first <= when <= last]
        return 1 - sum(inside) / len(inside) / 100 if inside else None

    def peak_mib(self):
        """Memory of the device in use at most, beyond what was in use at the start."""
        if not self.samples:
            return None
        return max(mib for _, _, mib in self.samples) - self.samples[0][2]
