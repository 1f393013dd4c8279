"""The code that MLflow runs to serve a bundle. It is copied into the model, so it stands on its own."""

from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

MAX_SAMPLES = 65_536
MAX_WRITTEN = 100_000
MAX_VALUES = 64 * 1024 * 1024


class ServedModel(PythonModel):
    """Takes raw images, texts, rows or sequences and returns labels with probabilities, or a prediction."""

    def load_context(self, context: Any) -> None:
        """Load the weights and the fitted encoder."""
        from pipeline.models import saved

        self._predictor = saved.load(context.artifacts["bundle"])

    # The input is what the signature says, often no table: MLflow ignores this type, where it would check
    # against others instead of the signature, and would warn if there were none.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict.

        Args:
            context: MLflow's context, not used.
            model_input: Raw samples as the signature describes them.
            params: Parameters: `batch_size` is the number of samples computed at once. A `length` above 0 asks a
                character model to go on with each text by so many characters, chosen at a `temperature` with a `seed`:
                the answer is `text`, the new characters alone.

        Raises:
            MlflowException: The input is not what the model takes: INVALID_PARAMETER_VALUE (HTTP 400).
        """
        raw = _samples(model_input)
        try:
            if (params or {}).get("length"):
                return self._written(raw, params or {})
            table: pd.DataFrame = self._predictor.predict(raw, batch_size=_batch_size(params))
            return table
        except MlflowException:
            raise
        except Exception as error:
            # Whatever goes wrong inside came from the input: one line says so, without our stack.
            reason = str(error) if type(error).__name__ == "UserError" else f"{type(error).__name__}: {error}"
            message = f"the model cannot take this input: {reason}"
            raise MlflowException.invalid_parameter_value(message) from None

    def _written(self, raw: Any, params: dict[str, Any]) -> pd.DataFrame:
        """How each of some texts goes on."""
        from pipeline.data.text.encoders import strings

        length, texts = int(params["length"]), strings(raw)
        if length * len(texts) > MAX_WRITTEN:
            raise MlflowException.invalid_parameter_value(
                f"length is {length} for {len(texts)} texts; at most {MAX_WRITTEN:,} characters are written at once"
            )
        how = {name: params[name] for name in ("temperature", "seed") if name in params}
        return pd.DataFrame({"text": [self._predictor.generate(text, length, **how) for text in texts]})


def _samples(model_input: Any) -> Any:
    """The raw samples in the form that the encoder takes, if their number and size are in bounds."""
    samples = model_input
    if isinstance(samples, pd.DataFrame) and list(samples.columns) in ([0], ["0"]):
        samples = samples[samples.columns[0]].tolist()
    if isinstance(samples, dict):
        samples = pd.DataFrame(samples)
    if len(samples) == 0:
        raise MlflowException.invalid_parameter_value("the input holds no samples")
    values = samples.size if isinstance(samples, np.ndarray | pd.DataFrame) else _length(samples)
    if len(samples) > MAX_SAMPLES or values > MAX_VALUES:
        raise MlflowException.invalid_parameter_value(
            f"the input holds {len(samples)} samples with {values} values; at most {MAX_SAMPLES} samples and "
            f"{MAX_VALUES} values are taken at once"
        )
    return samples


def _length(samples: Any) -> int:
    return sum(len(sample) if hasattr(sample, "__len__") else 1 for sample in samples)


def _batch_size(params: dict[str, Any] | None) -> int:
    size = (params or {}).get("batch_size", 1024)
    if not isinstance(size, int) or not 1 <= size <= MAX_SAMPLES:
        raise MlflowException.invalid_parameter_value(
            f"batch_size is {size!r}; a whole number from 1 to {MAX_SAMPLES} is expected"
        )
    return size


mlflow.models.set_model(ServedModel())
