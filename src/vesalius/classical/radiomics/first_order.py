"""Features of intensities alone, wherever they lie."""

from __future__ import annotations

import numpy as np

from vesalius.core.grid import Array, FloatArray

LEVELS = 32
_OUTLIER = 3.0


def discretised(values: FloatArray, levels: int = LEVELS) -> Array:
    """Grey levels from 1 to `levels`: fixed bin number, IBSI section 2.7.

    The range is what lies within three standard deviations of the mean (IBSI section 2.5, outlier
    filtering); what lies beyond is put into the first or last bin instead of being left out, so that a
    marker in the image does not squeeze all tissue into a few bins.

    Args:
        values: (n,) intensities inside the region.
    """
    middle, spread = float(values.mean()), float(values.std())
    low = max(float(values.min()), middle - _OUTLIER * spread)
    high = min(float(values.max()), middle + _OUTLIER * spread)
    if not high > low:
        return np.ones(values.shape, np.int64)
    scaled = np.floor(levels * (values - low) / (high - low)).astype(np.int64) + 1
    return np.clip(scaled, 1, levels)


def first_order(values: FloatArray) -> dict[str, float]:
    """Intensity-based statistics, IBSI section 3.3.

    Ratios whose divisor is zero are 0, as are skewness and kurtosis of constant values.

    Args:
        values: (n,) intensities inside the region, in the source's unit.
    """
    mean, variance = float(values.mean()), float(values.var())
    lowest, p10, p25, median, p75, p90, highest = np.percentile(values, [0, 10, 25, 50, 75, 90, 100])
    apart = values - mean
    middle = values[(values >= p10) & (values <= p90)]
    constant = variance <= 1e-12 * max(1.0, mean**2)
    return {
        "mean": mean,
        "variance": variance,
        "skewness": 0.0 if constant else float((apart**3).mean()) / variance**1.5,
        "excess_kurtosis": 0.0 if constant else float((apart**4).mean()) / variance**2 - 3.0,
        "median": float(median),
        "minimum": float(lowest),
        "percentile_10": float(p10),
        "percentile_90": float(p90),
        "maximum": float(highest),
        "interquartile_range": float(p75 - p25),
        "range": float(highest - lowest),
        "mean_absolute_deviation": float(np.abs(apart).mean()),
        "robust_mean_absolute_deviation": float(np.abs(middle - middle.mean()).mean()) if len(middle) else 0.0,
        "median_absolute_deviation": float(np.abs(values - median).mean()),
        "coefficient_of_variation": variance**0.5 / mean if mean else 0.0,
        "quartile_coefficient_of_dispersion": float((p75 - p25) / (p75 + p25)) if p75 + p25 else 0.0,
        "root_mean_square": float(np.sqrt((values**2).mean())),
    }


def histogram(levels: Array, count: int = LEVELS) -> dict[str, float]:
    """Entropy (bits) and uniformity of discretised intensities, IBSI sections 3.4.18 and 3.4.19.

    Args:
        levels: (n,) grey levels from 1 to `count`.
    """
    share = np.bincount(levels - 1, minlength=count) / levels.size
    present = share[share > 0]
    return {"entropy": float(-(present * np.log2(present)).sum()), "uniformity": float((share**2).sum())}
