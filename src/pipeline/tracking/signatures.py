"""Model signatures as plain values, and their translation into MLflow's.

A signature is `{"inputs": [column, ...], "outputs": [column, ...]}`. A column is one of

    {"tensor": "uint8", "shape": [-1, 28, 28]}             # an array; -1 is the number of samples
    {"type": "string"}                                     # one unnamed value a sample: texts
    {"type": "double", "name": "RM", "required": False}    # a named column of a table
    {"type": ["long"], "name": "tokens"}                   # a list in each row: sequences

with the types `boolean`, `integer`, `long`, `float`, `double`, `string`, `datetime` and `any`: MLflow leaves it to the
model what it takes. (It would refuse whole numbers for a `double`, and dates written as text for a `datetime`.)

A signature may also have `"params"`: numbers that may come beside the samples, by name with their defaults, such as
`{"length": 0, "temperature": 1.0}`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, Schema, TensorSpec


def tensor(dtype: str, shape: Sequence[int]) -> dict[str, Any]:
    """Describe an array, such as `tensor("uint8", [-1, 28, 28])`."""
    return {"tensor": dtype, "shape": list(shape)}


def column(type_: str | list[str], name: str | None = None, required: bool = True) -> dict[str, Any]:
    """Describe one value a sample, or with a type in a list (`["long"]`) a list of values a sample."""
    return {"type": type_, "name": name, "required": required}


def class_outputs(classes: Sequence[str], ranked: int = 0, together: bool = False) -> list[dict[str, Any]]:
    """What a classifier returns: `label`, `probability`, a ranked list, and `p_<class>` for every class.

    Of several labels a sample `labels` and `p_<label>`.

    Args:
        classes: Names of the classes.
        ranked: Number of entries of the ranked list, `label_1` and `probability_1` to so many.
        together: Whether a sample may have several labels.
    """
    probabilities = [column("double", f"p_{name}") for name in classes]
    if together:
        return [column("string", "labels"), *probabilities]
    places = range(1, min(ranked, len(classes)) + 1)
    kinds = (("string", "label"), ("double", "probability"))
    entries = [column(kind, f"{name}_{place}") for place in places for kind, name in kinds]
    return [column("string", "label"), column("double", "probability"), *entries, *probabilities]


def to_mlflow(signature: Mapping[str, Any]) -> "ModelSignature":
    """MLflow's form of a plain signature."""
    from mlflow.models import ModelSignature

    outputs = signature.get("outputs")
    params = signature.get("params")
    return ModelSignature(
        inputs=_schema(signature["inputs"]),
        outputs=_schema(outputs) if outputs else None,
        # MLflow says that there is always one, and takes None for none.
        params=cast("ParamSchema", _params(params) if params else None),
    )


def _params(params: Mapping[str, int | float]) -> "ParamSchema":
    from mlflow.types import ParamSchema, ParamSpec

    kinds = {int: "long", float: "double"}
    return ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in params.items()])


def _schema(columns: Sequence[Mapping[str, Any]]) -> "Schema":
    from mlflow.types import Schema

    return Schema([_spec(entry) for entry in columns])


def _spec(entry: Mapping[str, Any]) -> "ColSpec | TensorSpec":
    import numpy as np
    from mlflow.types import ColSpec, DataType, TensorSpec
    from mlflow.types.schema import AnyType, Array

    if "tensor" in entry:
        return TensorSpec(np.dtype(entry["tensor"]), tuple(entry["shape"]), entry.get("name"))
    kind = entry["type"]
    if kind == "any":
        return ColSpec(AnyType(), entry.get("name"), entry.get("required", True))
    datatype = Array(DataType[kind[0]]) if isinstance(kind, list) else DataType[kind]
    return ColSpec(datatype, entry.get("name"), entry.get("required", True))
