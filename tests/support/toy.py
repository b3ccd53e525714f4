"""The toy backend of docs/backends.md, taken from the page, and broken on purpose."""

import itertools
import sys
import types
from pathlib import Path

from lrfused import backends
from support import contract, pages
from support.inside import start_without_registered

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
_numbers = itertools.count()

# For each rule of contract.py, a change of the page's code that breaks it: (before, after).
BROKEN = {
    "a_refusal_comes_before_the_first_write": (
        "        reference.CheckedParameters(params, groups, state, rates, scaling)  # 3\n",
        "",
    ),
    "what_gradscaler_found_makes_no_update": (
        "if scaling.skips():",
        "if scaling.found_inf is not None and scaling.found_inf > 0:",
    ),
    "gradients_are_clipped_by_the_norm_of_all": (
        "return reference.backend.step(groups, state, program, advance, scaling)",
        "bound, scaling.max_grad_norm = scaling.max_grad_norm, 2 * scaling.max_grad_norm\n"
        "            done = reference.backend.step(groups, state, program, advance, scaling)\n"
        "            scaling.max_grad_norm = bound\n"
        "            return done",
    ),
    "a_norm_that_is_not_finite_makes_no_update_under_a_gradscaler": (
        "return reference.backend.step(groups, state, program, advance, scaling)",
        "reference.backend.step(groups, state, program, False, scaling)\n"
        "            if advance:\n"
        "                program.advance(groups)\n"
        "            return True",
    ),
    "a_failed_launch_leaves_no_half_made_state": (
        "buffers[p] = made[p] = torch.empty_like(p)  # 5",
        "buffers[p] = made[p] = state[p]['momentum_buffer'] = torch.empty_like(p)",
    ),
    "a_failed_odd_parameter_leaves_no_half_made_state": (
        "        update_odd()  # 9\n",
        "        try:\n"
        "            update_odd()\n"
        "        finally:\n"
        "            for _, p in odd:\n"
        "                state[p].setdefault('momentum_buffer', torch.empty_like(p))\n",
    ),
    "autograd_notices_that_parameters_were_written": (
        "        torch.autograd.graph.increment_version([p for _, p in plain])\n",
        "",
    ),
    "the_rates_used_are_noted": ("        program.use()  # 6\n", ""),
    "the_schedule_advances_after_all_tensors_and_is_shown": (
        "        update_odd()  # 9\n"
        "        if advance:\n"
        "            program.advance(groups)  # 10\n",
        "        if advance:\n            program.advance(groups)\n        update_odd()\n",
    ),
    "plain_parameters_have_the_references_bits": ("alpha=-lr)", "alpha=-lr * (1 + 1e-6))"),
    "odd_parameters_have_the_references_bits": (
        "        update_odd()  # 9\n",
        "        if scaling.master is not None:\n            update_odd()\n",
    ),
    "nothing_of_the_last_step_is_trusted": (
        "plain = [(g, p) for g, p in params if is_plain(p, own[p])]\n",
        "plain = vars(program).setdefault(\n"
        "            'plain', [(g, p) for g, p in params if is_plain(p, own[p])])\n",
    ),
    "masters_have_the_references_state": (
        "return p.dtype in (torch.float32, torch.float64) and all(",
        "return p.dtype != torch.complex64 and all(",
    ),
}


def source() -> str:
    """Return the page's code as far as the backend goes."""
    code = [block.code for block in pages.blocks(PAGE) if block.runs]
    until = next(i for i, text in enumerate(code) if "backend = Toy()" in text)
    return "\n".join(code[: until + 1])


def broken(rule: str) -> str:
    """Return the code, changed so that it breaks a rule."""
    before, after = BROKEN[rule]
    assert source().count(before) == 1, before
    return source().replace(before, after)


def register(monkeypatch, code: str, devices: tuple[str, ...] = ()) -> None:
    """Register the backend that the code makes, for this test, in the place of another toy."""
    name = f"toy_{next(_numbers)}"
    module = types.ModuleType(name)
    exec(compile(code, f"{PAGE} as {name}", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(contract.launches, "toy", f"{name}.kernel")
    start_without_registered(monkeypatch)
    backends.register(backends.Record("toy", name, devices, "tests"))
