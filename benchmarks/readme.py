"""Write the README's speed block from the newest results; with --check, only compare."""

import sys
from pathlib import Path
from typing import Any

from newest import newest

from lrfused.commands.bench import report

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->\n"
SHOWN = (
    "torch for-loop",
    "torch foreach",
    "torch fused",
    "torch.compile, tensor lr",
    "optax on JAX",
)


def block() -> str:
    """Return the block for the newest results: a row a case, a column a competitor."""
    found, _ = newest()
    device, versions = found["device"], found["versions"]
    threads = max(step["threads"] for step in found["steps"])
    steps = [step for step in found["steps"] if step["threads"] == threads]
    timed = [report.rates(step) for step in steps if "in_place_gb_per_s" in step]
    rivals = [name for name in SHOWN if any(name in rates for rates in timed)]
    lines = [
        f"One step with its schedule, median ms, on {device['cpu']}"
        f" ({threads} threads, {device['capability']}), torch {versions['torch']},"
        f" {found['date'][:10]}, commit {found['commit']['hash'][:9]}:",
        "",
        "| | lrfused | " + " | ".join(rivals) + " | of in-place bandwidth |",
        "|---|" + "---:|" * (len(rivals) + 2),
    ]
    lines += [row(step, rivals) for step in steps if "in_place_gb_per_s" in step]
    lines += [
        "",
        "\\* computes other bits than the oracle. — computes another update, or cannot run.",
    ]
    return "\n".join(lines) + "\n"


def row(step: dict[str, Any], rivals: list[str]) -> str:
    """Return a case's line."""
    rates = report.rates(step)
    other = {r["name"] for r in step["rows"] if not r["not_timed"] and r["distance"]["differing"]}
    cells = [
        f"{rates[name]['median_ms']:.2f}{' *' * (name in other)}" if name in rates else "—"
        for name in rivals
    ]
    ours = rates["lrfused"]
    share = f"{ours['share_of_in_place']:.0%}"
    return f"| {step['title']} | **{ours['median_ms']:.2f}** | {' | '.join(cells)} | {share} |"


def main() -> int:
    """Put the block in its place; return 1 if --check finds another there."""
    before, rest = README.read_text().split(BEGIN)
    _, after = rest.split(END)
    text = before + BEGIN + block() + END + after
    if "--check" in sys.argv:
        return int(text != README.read_text())
    README.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
