"""What models of the bedside have in common: a verified bundle with its card, and mostly one loaded graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vesalius.inference.session import Session
from vesalius.store.bundle import Bundle


class Bundled:
    """A model that was loaded from a bundle.

    Args:
        bundle: verified.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def card(self) -> Mapping[str, Any]:
        """The bundle's card."""
        return self._bundle.card

    @property
    def version(self) -> str:
        """The first 12 digits of the bundle's digest: what a written answer says it came from."""
        return self._bundle.digest[:12]


class BundledNetwork(Bundled):
    """One whose answers come from a graph.

    Args:
        bundle: verified.
        threads: processor threads; all that this process may use if left out.
        outputs: of the graph, the one that is verified first.

    Raises:
        BundleError: the graph cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int | None, outputs: Sequence[str] = ("logits",)) -> None:
        super().__init__(bundle)
        self._session = Session(bundle, threads, outputs)

    def verify(self) -> float:
        """Largest difference from the training side on the bundle's check volume; see `Session.verify`."""
        return self._session.verify()
