"""Statistics of agreement, accuracy and association: one module a topic, arrays in, numbers out.

Everything that compares grades or measurements computes it here: `bench.accuracy.compare`,
`bench.evaluation`, `bench.speed.suite.answers`, `export.precision.agreement` and `export.training`. Nothing
here reads files. What `compare` and the gate need is NumPy alone; SciPy, scikit-learn and statsmodels
(extra `evaluate`) are imported where they compute.
"""
