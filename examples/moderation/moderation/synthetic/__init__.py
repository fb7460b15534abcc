"""Makes all data of the example, each from a seed: nothing of it is real."""
