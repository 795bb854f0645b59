"""Where many cases are worked on: this machine's processes."""
