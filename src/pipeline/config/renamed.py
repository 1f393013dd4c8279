"""Names of earlier versions: configurations that runs recorded, and models that they saved, go on meaning the same."""

from __future__ import annotations

_MODULES = {
    "pipeline.data.characters": "pipeline.data.text.characters",
    "pipeline.data.housing": "pipeline.data.tables.housing",
    "pipeline.data.image_folder": "pipeline.data.images.folder",
    "pipeline.data.imdb": "pipeline.data.text.imdb",
    "pipeline.data.memmap": "pipeline.data.tables.memmap",
    "pipeline.data.reuters": "pipeline.data.text.reuters",
    "pipeline.data.sequences": "pipeline.data.teaching.systems",
    "pipeline.data.text_files": "pipeline.data.text.files",
    "pipeline.data.images.Images": "pipeline.data.images.published.Images",
    "pipeline.data.orders.Orders": "pipeline.data.orders.orders.Orders",
    "pipeline.data.tables.TableData": "pipeline.data.tables.table.TableData",
}


def current(name: str) -> str:
    """The dotted name by which a class is known now; any other name as it is."""
    for old, new in _MODULES.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name
