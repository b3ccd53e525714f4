"""The arithmetic of a step in pure PyTorch: every backend equals it bit for bit."""
