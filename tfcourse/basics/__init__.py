"""A network without a framework: NumPy, written to be read beside the formulas."""
