"""The reference side of the tests: random checkpoints, and what PyTorch makes of them."""
