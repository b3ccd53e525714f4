"""Write the README's figures from the newest results; with --check, only compare."""

import sys
from pathlib import Path
from typing import Any

from newest import newest, newest_path

from lrfused.commands.bench import report
from lrfused.commands.bench.contenders import FOR_LOOP, FUSED, LRFUSED

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SHOWN = (
    "torch for-loop",
    "torch foreach",
    "torch fused",
    "torch.compile, tensor lr",
    "optax on JAX",
)


def gain() -> str:
    """Return the sentences for the first screen: two models, and one of them on one thread."""
    found, _ = newest()
    path = newest_path().relative_to(ROOT)
    most = max(step["threads"] for step in found["steps"])

    def times(case: str, threads: int) -> tuple[str, str, str]:
        (step,) = (s for s in found["steps"] if s["case"] == case and s["threads"] == threads)
        rates = report.rates(step)
        loop, fused = (ratio(rates[name]) for name in (FOR_LOOP, FUSED))
        return f"{rates[LRFUSED]['median_ms']:.1f}", loop, fused

    ours, loop, fused = times("resnet50", most)
    ours_small, loop_small, fused_small = times("small", most)
    ours_alone, loop_alone, fused_alone = times("resnet50", 1)
    return (
        f"On a CPU ({found['device']['cpu']}, {most} threads, [results]({path})) a step with its\n"
        f"schedule takes {ours} ms for ResNet-50 in fp32, torch's for-loop {loop} times as long, "
        f"its `fused=True` {fused} times;\nand {ours_small} ms for 10,000 tensors of 64 elements, "
        f"where these take {loop_small} and {fused_small} times as long.\n"
        f"On one thread it takes {ours_alone} ms for ResNet-50, and these {loop_alone} and "
        f"{fused_alone} times as long.\n"
    )


def ratio(rate: dict[str, float]) -> str:
    """Return how many times as long as lrfused one took, in three digits at most."""
    times = rate["ratio_to_lrfused"]
    return f"{times:.2f}" if times < 10 else f"{times:.1f}" if times < 100 else f"{times:.0f}"


def table() -> str:
    """Return the table of the newest results: one row per case, one column per competitor."""
    found, _ = newest()
    device, versions = found["device"], found["versions"]
    threads = max(step["threads"] for step in found["steps"])
    steps = [step for step in found["steps"] if step["threads"] == threads]
    timed = [report.rates(step) for step in steps if "share_of_in_place" in step]
    rivals = [name for name in SHOWN if any(name in rates for rates in timed)]
    lines = [
        "One step with its schedule: lrfused's median in ms over all rounds, and how many times as "
        "long the others took\nin the same rounds as it (in some the machine is faster for both),",
        f"on {device['cpu']} ({threads} threads, {device['capability']}), "
        f"torch {versions['torch']}, {found['date'][:10]}, commit {found['commit']['hash'][:9]}"
        f"{' and changes' if found['commit']['dirty'] else ''}:",
        "",
        "| | lrfused | " + " | ".join(rivals) + " | lrfused's bandwidth † |",
        "|---|" + "---:|" * (len(rivals) + 2),
    ]
    lines += [row(step, rivals) for step in steps if "share_of_in_place" in step]
    lines += [
        "",
        "\\* computes other bits than the oracle. — computes another update, or cannot run.",
        "",
        "† The bytes that a step must move, divided by its time, as a share of the bandwidth of an "
        "in-place pass: `x.mul_(c)`\nover one tensor, timed in the same rounds. It may exceed "
        "100%, as a step reads more than it writes.",
    ]
    if found.get("loop"):
        lines += ["", *training(found["loop"])]
    return "\n".join(lines) + "\n"


def training(loop: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of training: one row per model and number of threads."""
    rivals = [row["name"] for row in loop[0]["rows"] if row["name"] != LRFUSED]
    notes = {row["name"]: row["note"] for part in loop for row in part["rows"] if row.get("note")}
    heads = [f"{name} ({notes[name]})" if name in notes else name for name in rivals]
    lines = [
        "Training small models, in the same run: `zero_grad()`, step and schedule together, median "
        "us, caches as forward and\nbackward leave them:",
        "",
        "| | lrfused | " + " | ".join(heads) + " | lrfused's share of an iteration |",
        "|---|" + "---:|" * (len(rivals) + 2),
    ]
    for part in loop:
        rates = report.loop_rates(part)
        cells = marked(part, rivals, {name: f"{rates[name]['both_us']:.1f}" for name in rates})
        ours = rates[LRFUSED]
        threads = f"{part['threads']} thread{'s' * (part['threads'] > 1)}"
        lines.append(
            f"| {part['title']}, {threads} | **{ours['both_us']:.1f}** | {' | '.join(cells)} "
            f"| {ours['share_of_iteration']:.0%} |"
        )
    return lines


def row(step: dict[str, Any], rivals: list[str]) -> str:
    """Return a case's line."""
    rates = report.rates(step)
    times = {name: ratio(rate) for name, rate in rates.items()}
    cells = marked(step, rivals, times)
    ours = rates["lrfused"]
    share = f"{ours['share_of_in_place']:.0%}"
    return f"| {step['title']} | **{ours['median_ms']:.2f} ms** | {' | '.join(cells)} | {share} |"


def marked(result: dict[str, Any], rivals: list[str], times: dict[str, str]) -> list[str]:
    """Return the rivals' times, those of other bits marked; a dash for those not timed."""
    other = {r["name"] for r in result["rows"] if not r["not_timed"] and r["distance"]["differing"]}
    return [f"{times[name]}{' *' * (name in other)}" if name in times else "—" for name in rivals]


def replaced(text: str, name: str, block: str) -> str:
    """Return the text with the block between the two comments of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + block + end + after


def main() -> int:
    """Put the blocks in their places; return 1 if --check finds others there."""
    text = replaced(replaced(README.read_text(), "gain", gain()), "speed", table())
    if "--check" in sys.argv:
        return int(text != README.read_text())
    README.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
