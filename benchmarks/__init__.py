"""Speed against a hand-written loop; ``python -m benchmarks`` (``make bench``)."""
