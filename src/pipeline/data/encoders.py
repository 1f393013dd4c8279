"""Importing this module registers every kind of encoder, so that any saved state can be read."""

from pipeline.data.encoder import ImageEncoder, SeriesEncoder, VectorEncoder
from pipeline.data.text_encoders import BagEncoder, CharacterEncoder, TokensEncoder

__all__ = ["BagEncoder", "CharacterEncoder", "ImageEncoder", "SeriesEncoder", "TokensEncoder", "VectorEncoder"]
