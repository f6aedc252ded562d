"""What a benchmark run records: figures, sections, charts; and what is made of records."""
