"""Sandboxes: confined processes in which code of a model runs."""
