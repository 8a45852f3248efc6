"""Overrides as a flow parameter: the sections of params.yaml with every key optional, under the same limits.

Prefect makes the form of a deployment, and the server's check of a run's parameters, from these models.
"""

import json
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from stillroom.params import Params
from stillroom.section import Section
from stillroom.student_params import Student


def assignments(overrides: BaseModel) -> list[str]:
    """The overrides as `section.key=value`, in the order given; a section that is null is not given."""
    given = overrides.model_dump(mode="json", exclude_unset=True)
    sections = {name: value for name, value in given.items() if value is not None}
    return [f"{dotted}={json.dumps(value, ensure_ascii=False)}" for dotted, value in _leaves("", sections)]


def _leaves(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _optional(field: FieldInfo, annotation: Any = None) -> Any:
    limited: Any = annotation or field.annotation
    if field.metadata:
        limited = Annotated[(limited, *field.metadata)]
    return (limited | None, Field(default=None, description=field.description))


def _partial(model: type[BaseModel]) -> type[BaseModel]:
    fields = {name: _optional(field) for name, field in model.model_fields.items()}
    return create_model(f"{model.__name__}Override", __base__=Section, __doc__=model.__doc__, **fields)


def _partial_student() -> type[BaseModel]:
    """One model for a student of any family; which keys fit which is checked once the params are whole."""
    families = get_args(get_args(Student)[0])
    fields = {name: _optional(field) for family in families for name, field in family.model_fields.items()}
    names = reduce(or_, (family.model_fields["family"].annotation for family in families))
    fields["family"] = _optional(families[0].model_fields["family"], names)
    return create_model("StudentOverride", __base__=Section, __doc__="Settings of one student.", **fields)


def _overrides() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, field in Params.model_fields.items():
        annotation: Any = field.annotation
        if name == "students":
            fields[name] = _optional(field, dict[str, _partial_student()] | Literal["auto"])  # type: ignore[misc]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields[name] = _optional(field, _partial(annotation))
        else:
            fields[name] = _optional(field)
    return create_model(
        "Overrides",
        __base__=Section,
        __doc__="Values that stand in for those of params.yaml in this run.",
        **fields,
    )


if TYPE_CHECKING:

    class Overrides(Section):
        """Values that stand in for those of params.yaml in this run."""
else:
    Overrides = _overrides()
