"""Stillroom: distil a large teacher into a small, quantised student that is proven to keep its quality."""

__version__ = "0.1.0"
