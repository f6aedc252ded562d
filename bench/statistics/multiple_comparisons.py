"""Correction of p-values for multiple comparisons."""

from __future__ import annotations

from collections.abc import Sequence

METHOD = "Holm"
"""Holm, Scandinavian Journal of Statistics 1979;6:65: controls the family-wise error, whatever the
dependence."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values, by statsmodels. An undefined p-value stays so and does not count."""
    from statsmodels.stats.multitest import multipletests

    known = [value for value in p_values if value is not None]
    if not known:
        return list(p_values)
    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if value is None else float(next(adjusted)) for value in p_values]
