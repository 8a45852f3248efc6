""".dvc/config.local: the settings of one workspace on one machine, beside whatever its owner wrote there."""

import configparser
import io
from collections.abc import Mapping
from pathlib import Path

from stillroom.errors import InputError
from stillroom.files import atomic_file

LOCAL = Path(".dvc/config.local")
COMMITTED = Path(".dvc/config")
_PATHS = {"url", "dir"}


def remote_section(name: str) -> str:
    """The section of a remote, as DVC spells it."""
    return f"'remote \"{name}\"'"


def read_config(path: Path) -> configparser.RawConfigParser:
    """Parse a DVC config file (INI as ConfigObj writes it), values as written; a missing one is empty."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except FileNotFoundError:
        return parser
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise InputError(f"{path}: not readable as a DVC config: {' '.join(str(error).split())}") from error
    return parser


def set_local(
    workspace: Path,
    settings: Mapping[str, Mapping[str, str]],
    base: configparser.RawConfigParser | None = None,
) -> bool:
    """Merge settings into .dvc/config.local (on top of `base` if given); True where that changed the file."""
    path = workspace / LOCAL
    parser = read_config(path)
    for source in (base or {}).values():
        _fill(parser, source.name, dict(source))
    changed = base is not None
    for section, plain in settings.items():
        values = {key: _quoted(value) for key, value in plain.items()}
        current = dict(parser[section]) if parser.has_section(section) else {}
        if any(current.get(key) != value for key, value in values.items()):
            changed = True
            _fill(parser, section, values)
    if changed:
        text = io.StringIO()
        parser.write(text)
        with atomic_file(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(text.getvalue(), encoding="utf-8")
    return changed


def movable(root: Path) -> configparser.RawConfigParser:
    """The checkout's .dvc/config.local with its relative paths made absolute, fit for another folder."""
    parser = read_config(root / LOCAL)
    for section in parser.sections():
        for key, written in parser[section].items():
            value = written.strip("\"'")
            if key in _PATHS and "://" not in value and not Path(value).is_absolute():
                parser[section][key] = _quoted(str((root / LOCAL.parent / value).resolve()))
    return parser


def _quoted(value: str) -> str:
    if not set(value) & set("#,\"'") and value == value.strip():
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'


def _fill(parser: configparser.RawConfigParser, section: str, values: Mapping[str, str]) -> None:
    if section == parser.default_section:
        return
    if not parser.has_section(section):
        parser.add_section(section)
    for key, value in values.items():
        parser[section][key] = value
