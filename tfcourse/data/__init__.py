"""Where data sets come from and how they become arrays; NumPy only, no TensorFlow."""
