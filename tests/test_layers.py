"""The layers of lrfused: which package may import which, and what may be read of an optimizer."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a package or module of lrfused imports only itself and those before it.
LAYERS = (
    "extension", "outside_modes", "checks", "arithmetic", "schedules", "program", "checkpoint",
    "rates", "reference", "backends", "integrations", "internals", "scheduler", "optimizer", "fuse",
    "commands",
)  # fmt: skip
FILES = sorted((ROOT / "lrfused").rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def runs(node):
    """Yield the nodes below, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        is_guard = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not is_guard:
            yield child
            yield from runs(child)


def imported(path):
    """Yield the modules of lrfused that a file imports, anywhere in it."""
    own = module_of(path).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    for node in runs(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [n if n in MODULES or n == "lrfused._C" else module for n in names]
        else:
            continue
        ours = (name for name in names if name.split(".")[0] == "lrfused")
        yield from (name for name in ours if name != "lrfused._C")


def layer_of(module):
    return module.split(".")[1] if "." in module else "lrfused"


def test_every_layer_has_its_place():
    layers = {layer_of(module) for module in MODULES} - {"lrfused", "__main__"}
    assert layers == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_no_import_runs_up(path):
    layer = layer_of(module_of(path))
    if layer in ("lrfused", "__main__", "commands"):
        return  # the roof
    below = set(LAYERS[: LAYERS.index(layer) + 1])
    up = {name for name in imported(path) if layer_of(name) not in below}
    assert not up, f"{module_of(path)} imports {sorted(up)}"


def test_no_circle_of_imports():
    """In a layer's own files, too; what a function imports counts as well."""
    graph = {
        module: {name for name in imported(path) if name in MODULES and not module.startswith(name)}
        for module, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def private_uses(path):
    """Yield the private attributes that a file reads or writes on an optimizer not its own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in ("optimizer", "_optimizer", "opt", "fused") and node.attr[:2] != "__":
                yield node.attr


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_an_optimizer_is_reached_by_its_internals_alone(path):
    allowed = {"_internals"}
    if path.name == "step_hooks.py":  # torch's own names
        allowed |= {"_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"}
    if path.name == "fused.py":  # likewise
        allowed |= {"_init_group"}
    assert set(private_uses(path)) <= allowed
