"""The parts of `benchmarks/gpu.py`: build, test, sanitize and time lrfused on a GPU."""
