"""Wilcoxon's signed-rank test of paired measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SignedRankTest:
    """Result of Wilcoxon's signed-rank test of differences.

    Attributes:
        pairs: number of pairs. statistic: V, the sum of the ranks of positive differences.
        p_value: two-sided; None where all differences are 0.
        median_difference: Hodges-Lehmann estimate, the median of the means of all pairs of differences.
    """

    pairs: int
    statistic: float | None
    p_value: float | None
    median_difference: float | None


def signed_rank_test(differences: npt.ArrayLike) -> SignedRankTest:
    """Wilcoxon's signed-rank test, two-sided (Wilcoxon, Biometrics Bulletin 1945;1:80), by SciPy.

    Differences of 0 are left out. Up to 50 pairs without ties the p-value is exact, beyond that it comes
    from the normal distribution with a correction for continuity, as in R's `wilcox.test`.

    Args:
        differences: independent signed differences (N,): one a patient, not one a level.
    """
    from scipy.stats import wilcoxon

    values = np.asarray(differences, dtype=np.float64)
    used = values[values != 0.0]
    middle = hodges_lehmann(values) if len(values) else None
    if len(used) == 0:
        return SignedRankTest(len(values), None, None, middle)
    tied = len(np.unique(np.abs(used))) < len(used) or len(used) < len(values)
    method = "exact" if len(used) < 50 and not tied else "approx"
    # With the alternative "greater" SciPy's statistic is V.
    positive = wilcoxon(used, alternative="greater", method=method, correction=method == "approx")
    found = wilcoxon(used, method=method, correction=method == "approx")
    return SignedRankTest(len(values), float(positive.statistic), float(found.pvalue), middle)


def hodges_lehmann(differences: npt.ArrayLike) -> float:
    """Median of the Walsh averages of differences (N,) (Hodges & Lehmann, Ann Math Stat 1963;34:598)."""
    values = np.asarray(differences, dtype=np.float64)
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2.0))
