"""The mathematics: layers, losses, the graph and the optimizers, on NumPy and the standard library alone."""
