"""`lrfused info`: the backends that are available, and the one used on each device."""

import builtins

import pytest

from lrfused import backends
from lrfused.commands import info
from lrfused.commands.main import main


def test_it_names_every_backend_and_what_is_chosen(capsys):
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    for name in backends.names():
        assert name in told
    assert backends.preferred("cpu") in told


def test_it_says_why_a_backend_is_not_there(monkeypatch, capsys):
    load = backends._load
    monkeypatch.setattr(
        backends, "_load", lambda name: "no compiler" if name == "compiled" else load(name)
    )
    first, second = info.report()
    assert ("compiled", "no compiler") in [row[:2] for row in first]
    assert second[0][2] == "reference"
    info.run()
    assert "no compiler" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False], ids=["rich", "plain"])
def test_it_needs_nothing_but_torch(monkeypatch, capsys, there):
    if there:
        pytest.importorskip("rich")
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("rich"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    if not there:
        monkeypatch.setattr(builtins, "__import__", without)
    assert info.run() == 0
    told = capsys.readouterr().out
    assert ("backend: triton" in told) is not there
