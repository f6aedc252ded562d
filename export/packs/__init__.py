"""Writing model packs, and the whole way from checkpoints to a pack."""
