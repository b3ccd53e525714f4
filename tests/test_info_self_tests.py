"""`lrfused info` shows the result of each self-test."""

import re

import pytest
from support.self_tests import (
    CPU,
    failed_launch,
    plant_in_step,
)

from lrfused.commands import info
from lrfused.commands.main import main

pytestmark = pytest.mark.usefixtures("untested")


def test_info_shows_what_passed(host_kernels, capsys):
    assert main(["info"]) == 0
    assert re.search(rf"{host_kernels} .*cpu .*passed in \d+\.\d ms", capsys.readouterr().out)


def test_info_shows_what_failed_and_what_is_used_instead(host_kernels, capsys, monkeypatch):
    plant_in_step(monkeypatch, host_kernels, failed_launch)
    assert info.report()[1][0][2] == "reference"
    ((state, difference),) = [
        (verdict.state, verdict.why)
        for name, device, verdict in info.self_tests()
        if name == host_kernels and device == CPU
    ]
    assert (state, difference) == ("failed", "RuntimeError: no kernel image is available")
    assert main(["info"]) == 0
    assert "failed in " in capsys.readouterr().out


def test_info_shows_what_was_left_out(host_kernels, capsys, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "0")
    assert main(["info"]) == 0
    assert "left out (LRFUSED_SELF_TEST=0)" in capsys.readouterr().out


def test_info_refuses_another_value(host_kernels, capsys, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "yes")
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "lrfused info: LRFUSED_SELF_TEST must be 0 or 1, got 'yes'\n"
