"""Write the README's speed block from the newest results file; with --check, only compare."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->\n"


def block() -> str:
    """Return the block for the newest results: a row a case, a column a competitor."""
    results = [json.loads(path.read_text()) for path in (HERE / "results").glob("step-*.json")]
    newest = max(results, key=lambda result: result["date"])
    device, versions = newest["device"], newest["versions"]
    rivals = [n for n in next(iter(newest["cases"].values()))["rates"] if n.startswith("torch")]
    lines = [
        f"One step with its schedule, median ms, on {device['cpu']}"
        f" ({device['torch_threads']} threads, {device['capability']}), torch {versions['torch']},"
        f" {newest['date'][:10]}, commit {newest['commit']['hash'][:9]}:",
        "",
        "| | lrfused | " + " | ".join(rivals) + " | of in-place bandwidth |",
        "|---|" + "---:|" * (len(rivals) + 2),
    ]
    for case in newest["cases"].values():
        rates = case["rates"]
        other = {name for name, d in case["distance_to_oracle"].items() if d["differing"]}
        row = [f"{rates[name]['median_ms']:.2f}{' *' * (name in other)}" for name in rivals]
        share = f"{rates['lrfused']['share_of_in_place']:.0%}"
        ours = f"**{rates['lrfused']['median_ms']:.2f}**"
        lines.append(f"| {case['title']} | {ours} | {' | '.join(row)} | {share} |")
    lines += ["", "\\* computes other bits than the reference."]
    return "\n".join(lines) + "\n"


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
