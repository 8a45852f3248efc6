"""The code that MLflow stores beside a package and runs to serve it; it imports the runtime, and no torch.

MLflow executes this file when a model is logged and whenever it is loaded, hence the call at its end.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class PackageModel(PythonModel):  # type: ignore[misc]
    """Texts in, their labels and how probable those are out, one row per text, in order."""

    def load_context(self, context: Any) -> None:
        """Load and verify the package; MLflow calls it by this name and with this argument."""
        _prefer_installed()
        from stillroom.export.runtime import Package

        self.package = Package.load(context.artifacts["package"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the column `text`; MLflow makes a DataFrame of a list of records as well."""
        from stillroom.problem import confidence

        probabilities = self.package.predict([str(text) for text in model_input["text"]])
        sure = confidence(probabilities, self.package.problem_type)
        return pd.DataFrame({"label": self.package.named(probabilities), "probability": sure})


def _prefer_installed() -> None:
    """Move the model's own runtime from the start of the path, where MLflow puts it, to the end.

    At the start it would hide all else of an installed Stillroom from this process and its children.
    """
    own = Path(__file__).with_name("code")
    sys.path[:] = sorted(sys.path, key=lambda entry: Path(entry).absolute() == own)


set_model(PackageModel())
