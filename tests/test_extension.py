"""The extension that a torch may load, and the reason given for one that it may not."""

import os

import pytest
import torch

from lrfused.extension.build_record import read, reason_not_to_load
from lrfused.extension.compile import copied_output, first_error

THIS = torch.__version__


def built(torch_version, error=None):
    return {"torch": torch_version, "error": error, "kernels_error": None}


def test_the_record_is_of_this_torch():
    if read() is None or read()["error"]:
        pytest.skip("there is no compiled extension")
    assert read()["torch"] == THIS
    assert reason_not_to_load(read()) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"torch": "2.13.0"}'])
def test_a_damaged_record_is_none(text, tmp_path):
    (tmp_path / "record").write_text(text)
    assert read(tmp_path / "record") is None


def test_it_is_loaded_into_patches_and_builds_of_its_minor_version():
    major, minor = THIS.split(".")[:2]
    for version in (f"{major}.{minor}.0", f"{major}.{minor}.9+cu130", f"{major}.{minor}.0a0"):
        assert reason_not_to_load(built(version)) is None


@pytest.mark.parametrize("version", ["1.13.1", "2.1.0", "2.100.0+cpu"])
def test_it_is_not_loaded_into_another(version):
    told = reason_not_to_load(built(version))
    assert f"compiled for torch {version}, and this is torch {THIS}" in told


def test_a_failed_build_is_told_with_its_first_error():
    told = reason_not_to_load(built("2.9.1", "csrc/x.cpp:1:2: error: no"))
    assert told.endswith("did not compile with torch 2.9.1: csrc/x.cpp:1:2: error: no")


def test_no_build_is_told():
    assert reason_not_to_load(None) == "lrfused was installed without its extension"


@pytest.mark.parametrize(
    "line",
    [
        "csrc/cpu/update.cpp:18:20: error: 'std::endian' has not been declared",
        "csrc/gather.cpp:7:10: fatal error: gather.h: No such file or directory",
        'csrc/cuda/step.cu(12): error: identifier "x" is undefined',
        "nvcc fatal   : Unsupported gpu architecture 'compute_75'",
        "/usr/bin/ld: cannot find -lcudart_static: No such file or directory",
        "x.o: in function `f': undefined reference to `g'",
        "/bin/sh: 1: /none: not found",
    ],
)
def test_the_first_error_of_compilers_and_linkers_is_found(line):
    output = f"""
        building 'lrfused._C' extension
        [1/2] c++ -Werror -c csrc/error.cpp -o error.o
        csrc/x.h:1:1: warning: unused variable 'error'
        csrc/x.h:1:1: note: error: is its name
        {line}
        csrc/y.cpp:1:1: error: a later one
    """
    assert first_error(output) == line


def test_what_a_compiler_has_printed_is_read_at_once():
    with copied_output() as printed:
        for i in range(300):
            os.write(2, b"%d: error\n" % i * 50)
            assert printed() == f"{i}: error\n" * 50
