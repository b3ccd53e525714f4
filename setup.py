"""Build a wheel with the extension for the torch that is there; without torch, for every torch."""

import importlib.util
import os
import runpy
import sys

from setuptools import setup

if importlib.util.find_spec("torch") and sys.platform != "win32":
    own = runpy.run_path("lrfused/extension/compile.py")
    setup(ext_modules=[own["extension"]()], cmdclass={"build_ext": own["OptionalBuild"]})
elif os.environ.get("LRFUSED_REQUIRE_EXTENSION") == "1":
    raise RuntimeError("LRFUSED_REQUIRE_EXTENSION=1 takes torch and --no-build-isolation, on Linux")
else:
    setup()  # the extension is compiled when it is first needed
