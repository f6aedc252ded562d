"""Calibration of probabilities: the expected calibration error (Guo et al., ICML 2017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def expected_calibration_error(probabilities: npt.ArrayLike, targets: npt.ArrayLike, bins: int = 15) -> float:
    """Mean difference between the highest probability and the accuracy.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: class of each row, int (N,).
        bins: of equal width over 0 to 1, each including its upper end.

    Returns:
        Σ n_b / N · |accuracy_b − mean confidence_b|, 0 to 1.

    Raises:
        ValueError: the arrays are empty or their shapes differ, a value is not a probability, a target is not
            a class, or `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins are too few. Give at least 1.")
    values, classes = check_scores(probabilities, targets, "probabilities")
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError("The probabilities reach beyond 0 to 1. Give them after the softmax.")
    highest, right = values.max(axis=1), values.argmax(axis=1) == classes
    places = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - highest, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


def check_scores(values: npt.ArrayLike, targets: npt.ArrayLike, what: str) -> tuple[FloatArray, IntArray]:
    """Check scores of classes and their targets.

    Args:
        values: float (N, C).
        targets: class of each row, int (N,).
        what: name of the values in messages.

    Returns:
        Both as float64 and int64.

    Raises:
        ValueError: the arrays are empty or their shapes differ, a value is not finite, or a target is not a
            class.
    """
    rows, classes = np.asarray(values, dtype=np.float64), np.asarray(targets)
    if rows.size == 0 or classes.size == 0:
        raise ValueError(f"There are no {what} or no targets. Give those of at least one held-out case.")
    if rows.ndim != 2 or classes.shape != rows.shape[:1]:
        raise ValueError(
            f"The {what} are {rows.shape} and the targets {classes.shape}. Give (N, classes) and (N,)."
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"The targets are {classes.dtype}. Give the classes as whole numbers.")
    if not np.isfinite(rows).all():
        raise ValueError(f"Not all {what} are finite. Look at the network that gave them.")
    if classes.min() < 0 or classes.max() >= rows.shape[1]:
        raise ValueError(
            f"The targets reach from {classes.min()} to {classes.max()}, and the classes from 0 to "
            f"{rows.shape[1] - 1}. Give targets of these classes."
        )
    return rows, classes.astype(np.int64)
