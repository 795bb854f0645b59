"""`python -m vesalius`."""

from vesalius.cli import main

main()
