"""The other end of stillroom.events: what a running stage has told since one looked last."""

import json
from pathlib import Path
from typing import Any


class EventsTail:
    """Reads whole new lines of an events file; a line that is no JSON object is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def new(self) -> list[dict[str, Any]]:
        """Events since the last call, in order."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found
