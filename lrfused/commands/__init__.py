"""The commands of `lrfused`: demo, info, verify, preview, bench, run."""
