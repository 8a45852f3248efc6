"""Quantisation in params.yaml: the ladder and what it may cost."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from stillroom.section import Section, Share

Rung = Literal[
    "dynamic_int8",
    "dynamic_int8_per_channel",
    "static_minmax",
    "static_entropy",
    "static_percentile",
    "mixed_int8",
    "fp32",
]
"""dynamic: activations are scaled as they come; static: as training rows had them, by the least and greatest value, by
entropy or by percentile; mixed: the first of the int8 rungs, with the nodes that it hurts most left in fp32."""


class QuantiseParams(Section):
    """The ladder: the first rung whose drop on validation is allowed wins."""

    rungs: tuple[Rung, ...] = get_args(Rung)
    allowed_drop: Share = 0.003
    """Validation accuracy that a rung may lose against the same student in fp32."""
    parity_tolerance: Annotated[float, Field(gt=0.0)] = 1e-3
    """Largest difference of a logit between PyTorch and the exported fp32 graph."""
    calibration_rows: Annotated[int, Field(ge=32)] = 256
    """Training rows that the static rungs take their ranges from."""

    @field_validator("rungs")
    @classmethod
    def _ends_safe(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or value[-1] != "fp32" or len(set(value)) != len(value):
            raise ValueError("name each rung once and end with fp32, which loses nothing")
        if value[0] == "mixed_int8":
            raise ValueError("name another int8 rung before mixed_int8, which starts from it")
        return value
