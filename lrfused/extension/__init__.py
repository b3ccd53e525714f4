"""The compiled extension: its build record, and the module that loads it."""

import os

PROCESS = os.getpid()  # that imported lrfused; the extension may be loaded later, in a fork of it
