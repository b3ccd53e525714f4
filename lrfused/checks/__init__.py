"""The checks of what a program passes: numbers made plain, and refusals with their words."""
