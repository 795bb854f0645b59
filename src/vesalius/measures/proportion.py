"""A share with its interval."""

from __future__ import annotations

import math


def wilson(hits: float, total: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of `hits` out of `total` (Wilson, J Am Stat Assoc 1927); 0 to 1 for nothing.

    Unlike the normal interval it holds its promise near 0 and 1 (Brown, Cai and DasGupta, Stat Sci 2001).
    """
    from scipy.special import ndtri

    if total <= 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2.0))
    share = hits / total
    centre = (share + z * z / (2.0 * total)) / (1.0 + z * z / total)
    half = z / (1.0 + z * z / total) * math.sqrt(share * (1.0 - share) / total + z * z / (4.0 * total * total))
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def percent(hits: float, total: float) -> str:
    """Share with its interval in words: "87 % (79 to 92)"."""
    low, high = wilson(hits, total)
    if total <= 0:
        return "–"
    return f"{100 * hits / total:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
