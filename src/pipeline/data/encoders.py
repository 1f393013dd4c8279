"""Importing this module registers every kind of encoder, so that any saved state can be read."""

from pipeline.data.encoder import ImageEncoder, SeriesEncoder, VectorEncoder
from pipeline.data.image_folder import ResizingImageEncoder
from pipeline.data.memmap import MappedEncoder
from pipeline.data.orders import OrdersEncoder
from pipeline.data.table_encoder import TableEncoder
from pipeline.data.text_encoders import BagEncoder, CharacterEncoder, TokensEncoder

__all__ = [
    "BagEncoder",
    "CharacterEncoder",
    "ImageEncoder",
    "MappedEncoder",
    "OrdersEncoder",
    "ResizingImageEncoder",
    "SeriesEncoder",
    "TableEncoder",
    "TokensEncoder",
    "VectorEncoder",
]
