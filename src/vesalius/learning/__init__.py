"""Budget and plan, prepared cases, the one training loop, and export. It needs the `train` extra."""
