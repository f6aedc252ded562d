"""Held-out cases: drawn ones, which are perfectly calibrated, and what nothing can be computed from."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def drawn_cases(count: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets drawn as the logits say: perfectly calibrated."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.standard_normal((count, classes))
    below = softmax(logits).cumsum(axis=1) < rng.random((count, 1))
    return logits, np.minimum(below.sum(axis=1), classes - 1)


UNUSABLE_CASES = (
    (np.zeros((0, 4)), np.zeros(0, int), "at least one held-out case"),
    (np.zeros((2, 0)), np.zeros(2, int), "at least one held-out case"),
    (np.full((2, 4), 0.25), np.array([0, 4]), "from 0 to 4, and the classes from 0 to 3"),
    (np.full((2, 4), 0.25), np.array([-1, 0]), "from -1 to 0"),
    (np.full((2, 4), 0.25), np.array([0]), r"\(2, 4\) and the targets \(1,\)"),
    (np.full(4, 0.25), np.array([0]), r"\(4,\) and the targets"),
    (np.full((1, 4), np.nan), np.array([0]), "finite"),
    (np.full((2, 4), 0.25), np.array([0.0, 1.0]), "whole numbers"),
)
"""Values, true classes, and words of the reason."""
