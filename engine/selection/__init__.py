"""Which series of a study are graded: keywords, eligibility, ranking, and the choice itself."""
