"""The page of a run: one HTML file, made of a piece for each study."""
