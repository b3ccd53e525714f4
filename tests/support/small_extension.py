"""A copy of lrfused whose extension compiles in a second, with a compiler that can be counted."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
#include <Python.h>
#include <initializer_list>
static PyModuleDef module{PyModuleDef_HEAD_INIT, "_C"};
PyMODINIT_FUNC PyInit__C() {
  PyObject* made = PyModule_Create(&module);
  PyObject* types = PyImport_ImportModule("types");
  PyObject* master = PyObject_CallMethod(types, "SimpleNamespace", nullptr);
  for (const char* name : {"none", "whole", "remainder"}) {
    PyObject_SetAttrString(master, name, Py_None);
  }
  PyModule_AddObject(made, "Master", master);
  return made;
}
"""
# It waits for as long as there is a file `wait`, and fails where there is one named `fail`.
COMPILER = """#!/bin/sh
case " $* " in *" -c "*)
  echo "$@" >> {folder}/log
  while [ -e {folder}/wait ]; do sleep 0.05; done
  [ ! -e {folder}/fail ] || {{ echo "csrc/small.cpp:1:1: error: planted" >&2; exit 1; }}
esac
exec c++ -O0 "$@"
"""
LEFT_OUT = shutil.ignore_patterns("*.so", "*.so.json", "__pycache__")
ASK = "from lrfused.extension import build; print(build.obtain())"
LOAD = "from lrfused.extension.load import _C; print(_C.__file__)"


class SmallExtension:
    """The copy. folder: what PYTHONPATH must have; cache: LRFUSED_CACHE."""

    def __init__(self, folder: Path, csrc: str = "csrc") -> None:
        self.folder, self.csrc, self.cache = folder, folder / csrc, folder / "cache"
        shutil.copytree(ROOT / "lrfused", folder / "lrfused", ignore=LEFT_OUT)
        (self.csrc / "cuda").mkdir(parents=True)
        (self.csrc / "small.cpp").write_text(MODULE)
        (self.csrc / "cuda" / "emulated.cpp").write_text("int y;\n")
        compiler = folder / "compiler"
        compiler.write_text(COMPILER.format(folder=folder))
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
            "CXX": str(compiler),
            "LRFUSED_CACHE": str(self.cache),
            "LRFUSED_CUDA": "0",
            "LRFUSED_BUILD": "auto",
            "MAX_JOBS": "1",
        }

    def start(self, script: str, **changed: str) -> "subprocess.Popen[str]":
        """Start a process that runs a script, in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=self.folder, text=True, start_new_session=True,
            env={**os.environ, **self.environment, **changed},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, script: str, **changed: str) -> tuple[str, str]:
        """Run a script; return what it printed, and what it printed on stderr."""
        process = self.start(script, **changed)
        out, err = process.communicate()
        assert process.returncode == 0, f"{out}\n{err}"
        return out.strip(), err.strip()

    def compiled(self) -> int:
        """Return how many files the compiler was called for; a whole build is two."""
        log = self.folder / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def left_behind(self) -> list[Path]:
        """Return the folders of builds that did not end."""
        return [*self.cache.glob("*/*.part-*")]
