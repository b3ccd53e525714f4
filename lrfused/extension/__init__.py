"""The compiled extension: the record of its build, and the module that loads it."""
