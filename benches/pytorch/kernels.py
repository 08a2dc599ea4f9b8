#!/usr/bin/env python3
"""PyTorch's time for what each of our kernels does, at the shapes of benches/kernels.rs, in the same way: device time between
two events, the L2 cache flushed before, all launches queued by then.

    python3 kernels.py --out kernels.json [--budget 120] [--tiny]

A row has the case and the shape as benches/kernels.rs names them, and a mode: `eager`, or `compile` (torch.compile). Forward
and backward are timed together but for batch norm, as there. All eager rows come first; the budget (seconds) may cut off
compiled ones, which then say so.
"""

import argparse

import torch
from torch.nn import functional

import measure
from contrastive_disentangling import Network, entropy, nt_xent

NAMES = {torch.bfloat16: "bf16", torch.float32: "f32"}


def normals(shape, dtype, device, grad=False):
    return torch.randn(shape, device=device).to(dtype).requires_grad_(grad)


def channels_last(images, px, channels, dtype, device, grad=False):
    """[N, C, H, W] that lies in memory as NHWC."""
    x = torch.randn(images, px, px, channels, device=device).to(dtype).permute(0, 3, 1, 2)
    return x.requires_grad_(grad)


class BatchNorm:
    """Both views through batch norm, residual and ReLU. Compiled or not, its backward is autograd's."""

    def __init__(self, images, px, channels, residual, dtype, device, wrap):
        self.x = [channels_last(images, px, channels, dtype, device, True) for _ in range(2)]
        self.residual = [channels_last(images, px, channels, dtype, device, True) for _ in range(2)] if residual else None
        self.weight, self.bias = (torch.full((channels,), v, device=device, requires_grad=True) for v in (1.1, 0.1))
        self.running = torch.zeros(channels, device=device), torch.ones(channels, device=device)
        self.call = wrap(self.both)
        self.dy = [torch.randn_like(x) for x in self.x]

    def both(self, x, residual):
        ys = []
        for view in range(2):
            y = functional.batch_norm(x[view], *self.running, self.weight, self.bias, True, 0.1, 1e-5)
            ys.append(functional.relu(y + residual[view] if residual is not None else y))
        return ys

    def forward(self):
        return self.call(self.x, self.residual)

    def backward(self):
        if not hasattr(self, "y"):
            self.y = self.forward()
        inputs = [*self.x, *(self.residual or []), self.weight, self.bias]
        return torch.autograd.grad(self.y, inputs, self.dy, retain_graph=True)


def with_gradient(function, x, wrap):
    """Forward and backward of a function of one tensor."""
    call = wrap(function)
    dy = torch.randn_like(call(x))
    return lambda: torch.autograd.grad(call(x), x, dy)


def columns(z):
    half = z.shape[0] // 2
    return torch.cat([z[:half].T, z[half:].T])


def batch_norm_cases(sizes, device):
    for images, px, channels, residual, dtype in sizes:
        rows, then = images * px * px, "residual, relu" if residual else "relu"
        shape = f"2 x [{rows}, {channels}] {NAMES[dtype]}, {then}"
        make = lambda wrap, a=(images, px, channels, residual, dtype): BatchNorm(*a, device, wrap)  # noqa: E731
        yield "batch_norm_forward", shape, lambda wrap, make=make: make(wrap).forward
        yield "batch_norm_backward", shape, lambda wrap, make=make: make(wrap).backward


def pool_cases(images, px, average_px, channels, average_channels, device):
    for dtype in (torch.bfloat16,):
        for count in images:
            def largest(wrap, count=count, dtype=dtype):
                x = channels_last(count, px, channels, dtype, device, True)
                return with_gradient(lambda x: functional.max_pool2d(x, 3, 2, 1), x, wrap)

            def average(wrap, count=count, dtype=dtype):
                x = channels_last(count, average_px, average_channels, dtype, device, True)
                return with_gradient(lambda x: x.mean((2, 3)), x, wrap)

            yield "max_pool", f"[{count}, {px}, {px}, {channels}] {NAMES[dtype]}", largest
            yield "global_avg_pool", f"[{count}, {average_px}, {average_px}, {average_channels}] {NAMES[dtype]}", average


def loss_cases(sizes, device):
    for (count, dim), precision, along in sizes:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32

        def make(wrap, count=count, dim=dim, precision=precision, along=along, dtype=dtype):
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            z = normals((count, dim) if along == "rows" else (2 * dim, count // 2), dtype, device, True)
            samples = (lambda z: z) if along == "rows" else columns
            return with_gradient(lambda z: nt_xent(samples(z), 0.5), z, wrap)

        yield "nt_xent", f"[{count}, {dim}] {precision}, {along}", make


def entropy_cases(sizes, device):
    for rows, heads in sizes:
        def make(wrap, rows=rows, heads=heads):
            def both(logits):  # heads and their entropy, as one scalar to go backward from
                return torch.sigmoid(logits), entropy(logits)

            logits = normals((rows, heads), torch.bfloat16, device, True)
            call, dy = wrap(both), normals((rows, heads), torch.bfloat16, device)
            minus = torch.tensor(-1.0, device=device)
            return lambda: torch.autograd.grad(call(logits), logits, [dy, minus])

        yield "binary_entropy", f"[{rows}, {heads}] bf16", make


def cast_cases(pixels, count, device):
    for images, px in pixels:
        def images_case(wrap, images=images, px=px):
            x = torch.randint(256, (images, px, px, 3), dtype=torch.uint8, device=device)
            call = wrap(lambda x: x.permute(0, 3, 1, 2).to(torch.bfloat16) / 255)
            return lambda: call(x)

        n = images * px * px
        yield "cast_images", f"[{n}, 3] to [{n}, 4] bf16", images_case

    def to_bf16(wrap):
        x = normals((count,), torch.float32, device)
        return lambda: x.to(torch.bfloat16)

    yield "cast_to_bf16", f"[{count}]", to_bf16


def adam_case(device, name):
    def make(wrap):
        network = Network("resnet34", 128, 128).to(device)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        cuda = device == "cuda"
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-4, fused=cuda, capturable=cuda)

        def step():
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, foreach=True)
            optimiser.step()

        return step

    yield "adam", name, make


def cases(tiny, device):
    """(case, shape, make): make(wrap) allocates and returns what is timed; wrap compiles a function, or does not."""
    bf16, f32 = torch.bfloat16, torch.float32
    if tiny:
        yield from cast_cases([(2, 8)], 1000, device)
        yield from batch_norm_cases([(2, 4, 8, True, bf16), (2, 4, 8, False, f32)], device)
        yield from pool_cases([2], 8, 4, 8, 8, device)
        yield from loss_cases([((8, 4), "bf16", "rows"), ((8, 4), "f32", "columns")], device)
        yield from entropy_cases([(4, 8)], device)
        yield from adam_case(device, "ResNet-34, 128 heads")
        return
    yield from cast_cases([(256, 224), (512, 224)], 21_284_672, device)
    stages = [(112, 64, False), (56, 64, True), (28, 128, True), (14, 256, True), (7, 512, True), (1, 512, False)]
    yield from batch_norm_cases([(n, *stage, bf16) for n in (128, 256) for stage in stages], device)
    yield from pool_cases([256, 512], 112, 7, 64, 512, device)
    sizes = [(256, 128), (512, 256), (8192, 128), (32768, 128)]
    yield from loss_cases([(size, p, "rows") for size in sizes for p in ("bf16", "tf32", "f32")], device)
    yield from loss_cases([(size, "bf16", "columns") for size in sizes[:2]], device)
    yield from entropy_cases([(256, 128), (512, 256), (4096, 4096)], device)
    yield from adam_case(device, "ResNet-34, 128 heads")


def ceilings(device, clock, tiny):
    """What the card gives to a copy and to cuBLAS."""
    size, side = (1 << 16, 64) if tiny else (1 << 30, 8192)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (normals((side, side), torch.bfloat16, device) for _ in range(2))
    copy = measure.summary(clock.launches(lambda: target.copy_(source), 10))["microseconds"]
    product = measure.summary(clock.launches(lambda: a @ b, 10))["microseconds"]
    return {"copy_gb_per_s": 2e-3 * size / copy, "bf16_matmul_tflop_per_s": 2e-6 * side**3 / product}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="kernels.json")
    parser.add_argument("--budget", type=float, default=120, help="seconds, after which no case is begun")
    parser.add_argument("--tiny", action="store_true", help="rehearse at toy sizes")
    arguments = parser.parse_args()
    device = measure.device(arguments.tiny)
    if arguments.tiny:
        arguments.budget = float("inf")
    torch.backends.cudnn.benchmark = True
    results, clock = measure.Results(arguments.out, arguments.budget, device), measure.Clock(device)
    results.json["ceilings"] = ceilings(device, clock, arguments.tiny)
    # On a CPU only whether cases can be traced is rehearsed: generating their code takes minutes.
    backend = "inductor" if device == "cuda" else "aot_eager"
    modes = {"eager": lambda f: f, "compile": lambda f: torch.compile(f, dynamic=False, backend=backend)}
    for mode, wrap in modes.items():
        for case, shape, make in cases(arguments.tiny, device):
            if mode == "compile" and case in ("adam", "cast_to_bf16"):
                continue  # nothing in them to compile

            def run(make=make, wrap=wrap):
                work = make(wrap)
                clock.launches(work, 3)
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                row = measure.summary(clock.launches(work, 3 if arguments.tiny else 30))
                if device == "cuda":
                    row["peak_mib"] = torch.cuda.max_memory_allocated() / (1 << 20)
                return row

            needs = 0 if arguments.tiny else 1 if mode == "eager" else 6
            results.add({"case": case, "shape": shape, "mode": mode}, run, needs)
            torch._dynamo.reset()
            if device == "cuda":
                torch.cuda.empty_cache()
    results.save()


if __name__ == "__main__":
    main()
