"""params.yaml on disk: read it, apply overrides, write it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillroom.errors import ParamsError
from stillroom.files import atomic_file
from stillroom.params import Params, validate
from stillroom.section import Section


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read a params file and apply overrides of the form `section.key=value`, values in YAML.

    Raises ParamsError with one line: the file, the key, its value and what is allowed.
    """
    return validate(merged(read_yaml(path), overrides), where=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping, as DVC reads it; duplicate keys are refused."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable ({error})") from error
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise ParamsError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: must be a mapping of sections, not {type(value).__name__}")
    return value


_TOLD_OF: Mapping[str, tuple[str, ...]] = {
    "data.source": (
        "data.sha256",
        "data.licence",
        *(f"governance.{key}" for key in ("personal_data", "lawful_basis", "dpia", "intended_use")),
    ),
    "data.validation": ("data.validation_sha256",),
    "data.test": ("data.test_sha256",),
    "data.unlabelled": ("data.unlabelled_sha256",),
    "data.cases": ("data.cases_sha256",),
    "teacher.source": ("teacher.sha256", "teacher.name", "teacher.licence", "governance.teacher_terms"),
}
"""Keys that tell of what stands at an address, and of no other."""


def merged(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `raw` with every `dotted.key=value` applied; where nothing is yet, a mapping grows on the way.

    An address that changes takes along what `raw` tells of the old one: its digest, its licence, its name, its terms.
    """
    from copy import deepcopy

    result: dict[str, Any] = deepcopy(dict(raw))
    given = [_assignment(override) for override in overrides]
    for dotted, value, _ in given:
        section, _, key = dotted.partition(".")
        before = result.get(section)
        if dotted in _TOLD_OF and isinstance(before, dict) and before.get(key) != value:
            for told in _TOLD_OF[dotted]:
                holder, _, name = told.partition(".")
                if isinstance(result.get(holder), dict):
                    result[holder].pop(name, None)
    for dotted, value, override in given:
        node = result
        *parents, key = dotted.split(".")
        for parent in parents:
            child = node[parent] = {} if node.get(parent) is None else node[parent]
            if not isinstance(child, dict):
                raise ParamsError(f"override {override!r}: {parent} holds a value, not a section")
            node = child
        node[key] = value
    return result


def _assignment(override: str) -> tuple[str, Any, str]:
    """Dotted key, value, and the override itself for messages."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ParamsError(f"override {override!r} is not of the form section.key=value")
    try:
        return dotted, YAML(typ="safe", pure=True).load(text), override
    except (YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(f"override {override!r}: not valid YAML: {_one_line(error)}") from error


def as_mapping(params: Params, *, defaults: bool = True) -> dict[str, Any]:
    """The params as params.yaml holds them: every value, or those that were given.

    Every section is there either way, if need be empty: DVC refuses a stage whose section it cannot find.
    """
    values = params.model_dump(mode="json", exclude_unset=not defaults)
    for name in Params.model_fields.keys() - values.keys():
        section = getattr(params, name)
        values[name] = section.model_dump(mode="json", exclude_unset=True) if isinstance(section, Section) else section
    return {name: values[name] for name in Params.model_fields}


def write_yaml(params: Params, path: Path, *, defaults: bool = True) -> None:
    """Write every value, defaults included, so that DVC's key and a reader see the whole run.

    Without defaults, what was not given stays out: the same key as the file that the params were read from.
    """
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 4096
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        writer.dump(as_mapping(params, defaults=defaults), stream)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
