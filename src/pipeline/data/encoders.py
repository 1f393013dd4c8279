"""Importing this module registers every kind of encoder, so that any saved state can be read."""

from pipeline.data.encoder import ImageEncoder, SeriesEncoder, VectorEncoder

__all__ = ["ImageEncoder", "SeriesEncoder", "VectorEncoder"]
