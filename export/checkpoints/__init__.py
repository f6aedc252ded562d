"""Reading trained checkpoints safely, and giving their weights to the networks."""
