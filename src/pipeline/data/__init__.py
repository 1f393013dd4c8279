"""Data sets: a ``Spec`` for models, an ``Encoder`` fitted on training data, and splits kept in memory."""
