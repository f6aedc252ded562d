"""Correction of p-values for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence

METHOD = "Holm"
"""Holm, Scandinavian Journal of Statistics 1979;6:65: controls the family-wise error, whatever the
dependence."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values. An undefined p-value stays so and does not count.

    The k-th smallest of m p-values, from k = 0, is multiplied by m − k, and is at least the one before it.
    """
    known = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, index) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted
