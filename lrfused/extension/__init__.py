"""The compiled extension: its build record, and the module that loads it."""
