"""Vesalius: from a folder of scans to a private, honest study on one's own machine."""

__version__ = "0.1.0"
