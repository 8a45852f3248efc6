"""What a child process prints, made fit for a log: secrets out, bars folded, floods thinned, the end kept."""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|AUTH_STRING|API_KEY|ACCESS_KEY|PRIVATE_KEY", re.I)
_URL_LOGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s:@]+:[^/\s@]+@", re.I)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_HINT = re.compile(
    r"\s*(To track the changes with git, run:|git add |To enable auto staging, run:|"
    r"dvc config core\.autostage true|Use `dvc push` to send)"
)
_SHORTEST_SECRET = 6
_LONGEST_LINE = 4000


def redactor(environment: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that blanks the values of secret variables and the logins in addresses."""
    secrets = {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    ordered = sorted((value for value in secrets if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in ordered:
            text = text.replace(secret, "***")
        return _URL_LOGIN.sub(r"\g<scheme>***@", text)

    return redact


class Output:
    """Takes bytes, tells lines: at most `burst` at once, `per_second` on average, `always` in any case."""

    def __init__(
        self,
        tell: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        *,
        per_second: float = 50.0,
        burst: int = 500,
        tail: int = 40,
        always: re.Pattern[str] | None = None,
    ) -> None:
        self.tail: deque[str] = deque(maxlen=tail)
        self._tell = tell
        self._redact = redactor(os.environ if environment is None else environment)
        self._per_second, self._burst = per_second, burst
        self._allowance, self._counted_at = float(burst), time.monotonic()
        self._always = always
        self._held_back = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add bytes; every completed line is told or counted."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)

    def close(self) -> None:
        """Tell what stands without a line end, and how much was held back."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        self._confess()

    def _line(self, raw: bytes) -> None:
        text = raw.decode("utf-8", errors="replace").rstrip("\r").rsplit("\r", 1)[-1]
        text = self._redact(_COLOUR.sub("", text)).rstrip()[:_LONGEST_LINE]
        if not text or _HINT.match(text):
            return
        self.tail.append(text)
        now = time.monotonic()
        earned = (now - self._counted_at) * self._per_second
        self._allowance, self._counted_at = min(float(self._burst), self._allowance + earned), now
        if self._allowance < 1.0 and not (self._always and self._always.match(text)):
            self._held_back += 1
            return
        self._allowance -= 1.0
        self._confess()
        self._tell(text)

    def _confess(self) -> None:
        if self._held_back:
            self._tell(f"… {self._held_back} more lines, too fast to show")
            self._held_back = 0
