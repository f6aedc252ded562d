"""The report in words: sentences, and the template that arranges them."""
