"""S3 through boto3: how a client is set up and how its errors are told, for sources and storage alike."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stillroom.errors import Absent, InputError, StillroomError, TryAgain

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
"""What a bucket may be called."""
_LONGEST_PAUSE_S = 20
_PASSING = (408, 409, 412, 416, 429)
"""Refusals because of another request or of the moment; 412 and 416: the object changed while it was read."""
_PASSING_CODES = ("RequestTimeout", "NoSuchUpload")
_NOT_IMPLEMENTED = 501


def client(
    where: str, *, attempts: int | None = None, connect_timeout_s: float = 10, read_timeout_s: float = 60
) -> Any:
    """A client of the server that AWS_ENDPOINT_URL names, or of Amazon's; `where` is what a message calls it.

    botocore sends a request `attempts` times in all, with exponential backoff and jitter between; without a number
    AWS_MAX_ATTEMPTS decides. Call it inside `told`.
    """
    import boto3
    from botocore.config import Config

    # Servers other than Amazon's reject the checksums that boto3 adds unasked since 1.36.
    config = Config(
        retries={"mode": "standard"} | ({"total_max_attempts": attempts} if attempts else {}),
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:
        raise InputError(f"{where}: {error}; AWS_ENDPOINT_URL must be http://host:port or https://host") from error


def status(error: Any) -> int:
    """The HTTP status of a ClientError."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def code(error: Any) -> str:
    """The name that S3 gives to a ClientError, such as NoSuchKey; the status as text in an answer to HEAD."""
    return str(error.response["Error"].get("Code", ""))


def pause(attempt: int) -> None:
    """Wait before what failed `attempt` times is tried again, by the rule that botocore has for its requests."""
    time.sleep(random.uniform(0, min(2 ** (attempt - 1), _LONGEST_PAUSE_S)))


@contextmanager
def told(where: str, unreachable: type[StillroomError] = TryAgain) -> Iterator[None]:
    """Turn boto3's errors into ours: what can pass by itself is TryAgain, an object that is not there Absent,
    the rest InputError. `unreachable` is for an endpoint that nobody answers at."""
    from boto3.exceptions import Boto3Error, S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, HTTPError, ResponseParserError) as error:
        cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
        raise _ours(cause or error, where, unreachable) from error


def _ours(error: BaseException, where: str, unreachable: type[StillroomError]) -> StillroomError:
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return _refused(error, where)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return InputError(f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile")
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return unreachable(f"{where}: no network: the S3 endpoint is not reachable; check AWS_ENDPOINT_URL")
    setup = isinstance(error, boto.BotoCoreError) and not isinstance(
        error, boto.HTTPClientError | boto.IncompleteReadError
    )
    if setup:
        return InputError(f"{where}: {_one_line(error)}")
    return TryAgain(f"{where}: the transfer broke off ({type(error).__name__}); try again")


def _refused(error: Any, where: str) -> StillroomError:
    number, name = status(error), code(error)
    answer = f"{where}: the server answers {number} ({_one_line(error.response['Error'].get('Message') or name)})"
    if name == "NoSuchKey":
        return Absent(f"{where}: no such object")
    if number in _PASSING or name in _PASSING_CODES or (number >= 500 and number != _NOT_IMPLEMENTED):
        return TryAgain(f"{answer}; try again later")
    return InputError(answer)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
