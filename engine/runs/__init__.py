"""A run over many studies: the batch, the results on disk, tables, and the record of what produced them."""
