"""Takes a run's results into the repository: benches/results, the kernels' index, the README's table."""

import json
import re
import subprocess
import sys

BEGIN, END = "<!-- gpu-check -->", "<!-- /gpu-check -->"
# What the README shows; the files have all of it.
SHOWN = ["tests", "sanitizer", "determinism", "step", "pipeline"]
# Long texts, and what has a file of its own.
ELSEWHERE = ["kernels", "step_output", "info", "failures"]


def keep(root, path):
    """Returns the exit code."""
    results = json.loads(path.read_text())
    if results["tiny"]:
        print("a rehearsal's numbers are not kept", file=sys.stderr)
        return 1
    name = results["device"].split(",")[0]
    short = re.search(r"[A-Za-z]*\d+\w*", name)
    short = (short.group(0) if short else name.replace(" ", "-")).lower()
    folder = root / "benches" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    if "kernels" in results:
        write(folder / f"kernels-{short}.json", results["kernels"])
    write(folder / f"gpu-check-{short}.json", {key: value for key, value in results.items() if key not in ELSEWHERE})
    index = subprocess.run([root / "scripts" / "kernel-index"], check=True, capture_output=True, text=True).stdout
    (root / "kernels" / "README.md").write_text(index)
    readme = root / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"README.md has no {BEGIN} ... {END}", file=sys.stderr)
        return 1
    readme.write_text(f"{before}{BEGIN}\n{table(results, short)}{END}{after}")
    return 0


def write(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")
    print(path)


def table(results, short):
    """Markdown; a row that failed says so."""
    lines = [
        f"{results['device']}; {results['date']}; commit {results['bundle']['commit'][:10]}. `ours/PyTorch` is throughput; PyTorch",
        f"is its fastest mode in the same run. All rows and kernels: `benches/results/*-{short}.json`.\n",
        "| check | case | | this engine | PyTorch | ours/PyTorch | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        if row["check"] in SHOWN:
            cells = [row[key].replace("|", "\\|") for key in ("check", "case", "status", "ours", "pytorch", "ratio", "note")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
