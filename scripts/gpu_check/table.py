"""The table, and the file with everything."""

import dataclasses
import json

HEADINGS = ["check", "case", "status", "ours", "PyTorch", "ours/PyTorch", "note"]
# A note is cut here; results.json has all of it.
WIDEST = 90


def save(session, path):
    """Everything so far; a run that is cut off leaves what it had."""
    everything = {
        "bundle": {key: session.manifest[key] for key in ("commit", "changed", "date")},
        "tiny": session.tiny,
        "rows": [dataclasses.asdict(row) for row in session.rows],
        "seconds": session.seconds,
        **session.data,
    }
    path.write_text(json.dumps(everything, indent=1) + "\n")


def show(session, path):
    """Prints the table last. Returns the exit code."""
    rows = [HEADINGS] + [[" ".join(text.split())[:WIDEST] for text in dataclasses.astuple(row)] for row in session.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    failed = sum(row.status == "FAILED" for row in session.rows)
    print(f"\n{sum(session.seconds.values()):.0f} s; {failed} of {len(session.rows)} rows failed; all of it in {path}\n")
    for index, row in enumerate(rows):
        cells = [text.rjust(width) if 3 <= i <= 5 else text.ljust(width) for i, (text, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join(cells) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return 1 if failed else 0
