"""The life of one run: what it is, trained, tested, recorded, resumed, handed over."""
