"""Architectures of learned models. They need the `train` extra."""
