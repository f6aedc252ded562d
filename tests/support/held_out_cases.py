"""Values and true classes of held-out cases that nothing can be computed from, with words of the reason."""

from __future__ import annotations

import numpy as np

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
