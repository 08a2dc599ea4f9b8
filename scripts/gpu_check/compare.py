"""Sections that time our step and our kernels, and PyTorch's beside them."""

import json
import re

from .session import Failed, Row, check
from .training import environment

# Side of the images in the bundle's data set.
SOURCE_PX = 48


def row_of(session, section, case):
    return next((row for row in session.rows if (row.check, row.case) == (section, case)), None)


def step(session):
    """The training step alone, on resident data; benches/cuda_step.rs prints a JSON line a case."""
    program = session.binary("bench-cuda_step")
    if session.tiny:
        command = [program, "--backbone", "18", "--px", "32", "--batch", "4", "--steps", "2"]
    else:
        command = [program, "--backbone", "34", "--px", "224", "--batch", "256", "--batch", "128", "--convolutions"]
    ended = session.run(command, 100, environment(session, "cuda"))
    session.data["step_output"] = ended.output[-20000:]
    for line in ended.output.splitlines():
        if not line.startswith("{"):
            continue
        data = json.loads(line)
        data["batch"] = int(re.search(r"batch (\d+)", data["case"]).group(1))
        session.data.setdefault("step", []).append(data)
        name = re.sub(r" (bf16|tf32|f32)$", "", data["case"])
        note = f"{data['median_ms']:.2f} ms, peak {data.get('peak_mib', 0)} MiB, loss {data['loss']:.3f}"
        session.add(Row("step", name, "ok", f"{data['views_per_s']:.0f} views/s", note=note))
    check(ended, "cuda_step")
    session.reports("step", ended)
    if "step" not in session.data:
        raise Failed(f"it printed no case: {ended.last()}")


def pytorch_step(session, script):
    """PyTorch's step in its modes; the best goes beside ours."""
    data = script(session, "cd_step", 190, "--source-px", SOURCE_PX)
    session.data["pytorch_step"] = data
    for row in data["rows"]:
        case = f"{row['arch']} {row['px']} px batch {row['batch']}"
        if "failed" in row:
            session.add(Row("pytorch-step", f"{case} {row['mode']}", "FAILED", note=row["failed"]))
            continue
        note = f"{row['microseconds'] / 1e3:.2f} ms" + (f", peak {row['peak_mib']:.0f} MiB" if "peak_mib" in row else "")
        rate = f"{row['views_per_s']:.0f} views/s"
        session.add(Row("pytorch-step", f"{case} {row['mode']}", "ok", pytorch=rate, note=note))
    for section, modes in [("step", lambda mode: mode != "pipeline"), ("pipeline", lambda mode: mode == "pipeline")]:
        beside(session, section, [row for row in data["rows"] if "failed" not in row and modes(row["mode"])])


def beside(session, section, rows):
    """The fastest of PyTorch's modes beside each of our cases."""
    for ours in session.data.get(section, []):
        case = re.sub(r" (bf16|tf32|f32)$", "", ours["case"])
        same = [row for row in rows if f"{row['arch']} {row['px']} px batch {row['batch']}" == case]
        if not same or not (line := row_of(session, section, case)):
            continue
        best = max(same, key=lambda row: row["views_per_s"])
        line.pytorch = f"{best['views_per_s']:.0f} views/s"
        line.ratio = f"{ours['views_per_s'] / best['views_per_s']:.2f}"
        line.note += f"; PyTorch {best['mode']}"
        if "reserved_mib" in best:
            line.note += f" {best['reserved_mib']:.0f} MiB"


def kernels(session):
    """benches/kernels.rs: a row for each operation, and for each kernel of those that have one only."""
    out = session.scratch / "kernels.json"
    env = session.environment(
        KERNEL_BENCH_JSON=out, KERNEL_BENCH_SHAPES="tiny" if session.tiny else "paper", CRITERION_HOME=session.scratch / "criterion"
    )
    command = [session.binary("bench-kernels"), "--bench"]
    if session.tiny:
        command.append("binary_entropy")  # criterion's filter
    check(session.run(command, 150, env), "the bench")
    data = json.loads(out.read_text())
    session.data["kernels"] = data
    if data["virtual"] and not session.tiny:
        raise Failed("it ran on the virtual GPU")
    ceilings = data["ceilings"]
    session.add(Row("kernels", "ceilings", "ok", f"{ceilings['copy_gb_per_s']:.0f} GB/s", note=", ".join(
        f"{name} {ceilings[f'{name}_tflop_per_s']:.0f} TFLOP/s" for name in ("mma_bf16", "mma_tf32", "fma"))))
    for row in operations(data):
        note = f"floor {row['floor_us']:.1f} us ({100 * row['share_of_floor']:.0f} %), {row['gb_per_s']:.0f} GB/s"
        if row["tflop_per_s"] >= 1:
            note += f", {row['tflop_per_s']:.0f} TFLOP/s"
        session.add(Row("kernels", f"{row['case']} {row['shape']}", "ok", f"{row['microseconds']:.1f} us", note=note))


def operations(data):
    """The row of each case as a whole."""
    counts = {}
    for row in data["rows"]:
        counts.setdefault((row["case"], row["shape"]), []).append(row)
    for rows in counts.values():
        yield next((row for row in rows if row["kernel"] == "all"), rows[0])


def pytorch_kernels(session, script):
    """PyTorch's time for the same; the faster of eager and compiled goes beside ours."""
    data = script(session, "kernels", 90)
    session.data["pytorch_kernels"] = data
    good = [row for row in data["rows"] if "failed" not in row]
    failed = [row for row in data["rows"] if "failed" in row and "left out" not in row["failed"]]
    for row in failed:
        session.add(Row("pytorch-kernels", f"{row['case']} {row['shape']} {row['mode']}", "FAILED", note=row["failed"]))
    beside_count = 0
    for ours in operations(session.data["kernels"]) if "kernels" in session.data else []:
        same = [row for row in good if (row["case"], row["shape"]) == (ours["case"], ours["shape"])]
        line = row_of(session, "kernels", f"{ours['case']} {ours['shape']}")
        if not same or not line:
            continue
        best = min(same, key=lambda row: row["microseconds"])
        line.pytorch = f"{best['microseconds']:.1f} us"
        line.ratio = f"{ours['microseconds'] / best['microseconds']:.2f}"
        line.note += f"; PyTorch {best['mode']}"
        beside_count += 1
    left_out = len(data["rows"]) - len(good) - len(failed)
    note = f"{beside_count} beside ours" + (f"; {left_out} left out for lack of time" if left_out else "")
    session.add(Row("pytorch-kernels", f"{len(good)} cases", "ok" if good else "FAILED", note=note))
