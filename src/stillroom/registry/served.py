"""The code that MLflow stores beside a package and runs to serve it; it imports the runtime, and no torch.

MLflow executes this file when a model is logged and whenever it is loaded, hence the call at its end.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from stillroom.export.runtime import Package


class PackageModel(PythonModel):  # type: ignore[misc]
    """Texts in, the likeliest label and its probability out, one row per text, in order."""

    def load_context(self, context: Any) -> None:
        """Load and verify the package; MLflow calls it by this name and with this argument."""
        self.package = Package.load(context.artifacts["package"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the column `text`; MLflow makes a DataFrame of a list of records as well."""
        probabilities = self.package.predict([str(text) for text in model_input["text"]])
        labels = [self.package.labels[index] for index in probabilities.argmax(axis=1)]
        return pd.DataFrame({"label": labels, "probability": probabilities.max(axis=1)})


set_model(PackageModel())
