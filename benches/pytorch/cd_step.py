#!/usr/bin/env python3
"""PyTorch's time for the training step of Contrastive Disentangling: what our step is compared with, on the same card.

    python3 cd_step.py --out step.json [--arch resnet34] [--px 224] [--batch 128 256] [--budget 240]
                       [--modes eager eager+graph compile compile+graph pipeline] [--tiny]

The step: uint8 images on the device (NHWC) to bf16 / 255, both views through the network, three losses, backward, clipping
of the global gradient norm at 1, Adam. PyTorch at its best: bf16 autocast, channels_last, cudnn.benchmark, fused Adam. Modes:

    eager            as written
    eager+graph      the whole step captured once as a CUDA graph and replayed: no Python, no launches in between
    compile          network and losses through torch.compile, as one graph
    compile+graph    that step captured as a whole
    pipeline         the last of the above that worked, behind a DataLoader with torchvision's augmentation on every core,
                     images as bytes, pinned memory; random images, as large as --source-px; for the first batch size

A row each: `views_per_s` (two views an image) from the median step, device time from the end of a step to the end of the
next, `peak_mib` allocated and `reserved_mib` taken from the driver. A mode that fails, or for which the budget (seconds) does
not last, is a row that says so. `--tiny` rehearses every mode that a CPU can run.
"""

import argparse
import math
import os
import statistics
import time

import numpy
import torch

import measure
from contrastive_disentangling import Network, loss

MODES = ["eager", "eager+graph", "compile", "compile+graph", "pipeline"]
# About how many seconds a mode takes, with its compilation.
NEEDS = {"eager": 15, "eager+graph": 15, "compile": 75, "compile+graph": 15, "pipeline": 40}


class Step:
    """Network, optimiser and two resident batches; calling it trains once."""

    def __init__(self, arguments, batch, device):
        torch.manual_seed(0)
        self.device, self.batch = device, batch
        self.network = Network(arguments.arch, batch, batch).to(device, memory_format=torch.channels_last).train()
        fused = device == "cuda"
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=3e-4, fused=fused, capturable=fused)
        shape = (batch, arguments.px, arguments.px, 3)
        self.images = [torch.randint(256, shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self.loss = self.forward

    def forward(self, first, second):
        # NHWC seen as NCHW is what PyTorch calls channels_last. All 256 levels are bf16 numbers.
        views = [view.permute(0, 3, 1, 2).to(torch.bfloat16) / 255 for view in (first, second)]
        return loss(self.network, *views)

    def compile(self):
        # On a CPU only whether the whole can be traced is rehearsed: generating its code takes minutes.
        backend = "inductor" if self.device == "cuda" else "aot_eager"
        self.loss = torch.compile(self.forward, dynamic=False, fullgraph=True, backend=backend)

    def __call__(self):
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16):
            value = self.loss(*self.images)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        return value

    def capture(self):
        """The step as one CUDA graph: what replays it, and the loss."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # lazily made state must exist before the capture
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimiser.zero_grad(set_to_none=True)
        # While it is captured the step allocates what its replays use; they allocate nothing.
        torch.cuda.reset_peak_memory_stats()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = self()
        return graph.replay, value


def peaks(clock):
    if not clock.cuda:
        return {}
    mib = 1 / (1 << 20)
    return {"peak_mib": torch.cuda.max_memory_allocated() * mib, "reserved_mib": torch.cuda.max_memory_reserved() * mib}


def warm_up(step, arguments):
    for _ in range(1 if arguments.tiny else 10):
        step()


def time_step(step, clock, arguments, batch):
    """Times steady steps; the loss must be a number afterwards."""
    last = []
    seconds = clock.steady(lambda: last.__setitem__(slice(None), [step()]), 2 if arguments.tiny else arguments.steps)
    loss = last[0].item()
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss is {loss}")
    views_per_s = 2 * batch / statistics.median(seconds)
    return {**measure.summary(seconds), "views_per_s": views_per_s, "loss": loss, **peaks(clock)}


def fresh(device):
    """Frees what the last mode held, so that peaks are a mode's own."""
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Views(torch.utils.data.Dataset):
    """Two augmented views of images that lie in memory, as bytes [px, px, 3]."""

    def __init__(self, count, source_px, px):
        from torchvision.transforms import v2

        self.images = numpy.random.default_rng(0).integers(0, 256, (count, source_px, source_px, 3), numpy.uint8)
        strength = 0.5
        jitter = v2.ColorJitter(*[0.8 * strength] * 3, 0.2 * strength)
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(px, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([jitter], 0.8),
                v2.RandomGrayscale(0.2),
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from PIL import Image

        image = Image.fromarray(self.images[index % len(self.images)])
        return [torch.from_numpy(numpy.asarray(self.augment(image)).copy()) for _ in range(2)]


def pipeline(step, run, arguments, batch, clock):
    """Steps behind the loader: views/s by the host's clock, from the first batch after the warm-up to the end."""
    workers = len(os.sched_getaffinity(0))
    seconds = 4 if arguments.tiny else arguments.pipeline_seconds
    images = Views(4 * batch if arguments.tiny else 8192, arguments.source_px, arguments.px)
    sampler = torch.utils.data.RandomSampler(images, replacement=True, num_samples=1 << 30)
    # Forked workers and a CUDA context do not go together; spawned ones import the script again.
    loader = torch.utils.data.DataLoader(
        images, batch, sampler=sampler, num_workers=workers, drop_last=True, pin_memory=clock.cuda,
        prefetch_factor=4, multiprocessing_context="spawn",
    )
    batches, done, start = iter(loader), 0, None
    warm = 1 if arguments.tiny else 2 * workers
    for count, views in enumerate(batches):
        if count == warm:
            clock.synchronise()
            start = time.perf_counter()
        for resident, view in zip(step.images, views):
            resident.copy_(view, non_blocking=True)
        run()
        done += count >= warm
        if start is not None and time.perf_counter() - start > seconds and done > 0:
            break
    clock.synchronise()
    elapsed = time.perf_counter() - start
    del batches, loader
    return {"views_per_s": 2 * batch * done / elapsed, "microseconds": 1e6 * elapsed / done, "measured": done,
            "workers": workers, **peaks(clock)}


def run_batch(arguments, batch, device, results, clock):
    """All modes of one batch size; each that goes on with another's step (a capture, the pipeline) says so by order."""
    name = {"arch": arguments.arch, "px": arguments.px, "batch": batch}
    state = {}

    def resident(compiled):
        state.clear()
        fresh(device)
        state["step"] = state["run"] = step = Step(arguments, batch, device)
        if compiled:
            step.compile()
        warm_up(step, arguments)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # without the workspaces that choosing algorithms took
        return time_step(step, clock, arguments, batch)

    def graph():
        replay, loss = state["step"].capture()

        def run():
            replay()
            return loss

        warm_up(run, arguments)
        row = time_step(run, clock, arguments, batch)
        state["run"] = run
        return row

    def loaded():
        return pipeline(state["step"], state["run"], arguments, batch, clock)

    runs = {
        "eager": lambda: resident(compiled=False),
        "eager+graph": graph,
        "compile": lambda: resident(compiled=True),
        "compile+graph": graph,
        "pipeline": loaded,
    }
    for mode in MODES:
        if mode not in arguments.modes or (device == "cpu" and mode.endswith("+graph")):
            continue
        if mode == "pipeline" and batch != arguments.batch[0]:
            continue
        results.add({**name, "mode": mode}, runs[mode], 0 if arguments.tiny else NEEDS[mode])
    state.clear()
    fresh(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="cd_step.json")
    parser.add_argument("--arch", default="resnet34", choices=["resnet18", "resnet34", "resnet50"])
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 128], help="images a view")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a mode")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--source-px", type=int, default=96, help="size of the images that the pipeline augments")
    parser.add_argument("--pipeline-seconds", type=float, default=15)
    parser.add_argument("--budget", type=float, default=240, help="seconds, after which no mode is begun")
    parser.add_argument("--tiny", action="store_true", help="rehearse at toy sizes")
    arguments = parser.parse_args()
    device = measure.device(arguments.tiny)
    if arguments.tiny:
        arguments.arch, arguments.px, arguments.batch, arguments.source_px = "resnet18", 32, [8], 32
        arguments.budget = float("inf")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    results = measure.Results(arguments.out, arguments.budget, device)
    clock = measure.Clock(device)
    for batch in arguments.batch:
        run_batch(arguments, batch, device, results, clock)
    results.save()


if __name__ == "__main__":
    main()
