"""The small systems that learning is taught with."""
