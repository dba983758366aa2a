"""Limits how long a command waits for a Hub that does not answer."""

import logging
import re
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import huggingface_hub
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import default_client_factory

if TYPE_CHECKING or int(huggingface_hub.__version__.partition(".")[0]) >= 2:
    import httpx2 as httpx  # the one that huggingface_hub uses
else:
    import httpx

logger = logging.getLogger(__name__)

_WRITE_S = 60.0  # the Hub needs time to commit many files
_MAX_PAUSE_S = 60
_MAX_FAILURES = 4  # consecutive refusals (429, 5xx); a failed connection counts as two
_CUT_OFF_S = 60.0
_AUXILIARY_S = 3.0
_MIN_RATE = 1024  # bytes per second
NO_HUB = "the server at {} is not the Hub (a login page of the network, or a wrong HF_ENDPOINT?)"


class HubNotReachedError(OfflineModeIsEnabled):
    """The Hub does not answer in time. As in offline mode, cached files are used."""


def limit_hub_waits() -> None:
    """Limit the waits of huggingface_hub's client in this process, which transformers and datasets also use.

    By default, the client waits forever for a Hub that accepts connections and does not answer, for six minutes for a
    file that is not cached, and as long as an overloaded Hub asks it to. This function changes the following:

    - Every request has a timeout: HF_HUB_ETAG_TIMEOUT (10 s; half of it before the first response), for downloads
      HF_HUB_DOWNLOAD_TIMEOUT (10 s), for uploads one minute.
    - After two failed connections or four refusals (429, 5xx), all requests in the next minute fail immediately with
      `HubNotReachedError`, with one warning. Downloads that have started keep the client's five retries.
    - Pauses that the Hub asks for are respected up to one minute.
    - Responses slower than 1 kB per second over three download timeouts are aborted.
    """
    reach = _Reach()

    def bounded_client() -> httpx.Client:
        client = default_client_factory()
        client.send = partial(_send, client.send, reach)  # type: ignore[method-assign]
        return client

    set_client_factory(bounded_client)
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_is_first_warning)


def _is_first_warning(record: logging.LogRecord) -> bool:
    """Let the same warning about an unreachable Hub through only once. The client logs it for every file."""
    text = record.getMessage()
    is_new = text not in _logged
    if text.startswith("Could not reach the Hub"):
        _logged.add(text)
    return is_new


_logged: set[str] = set()


class _Reach:
    """Tracks whether the Hub answers."""

    def __init__(self) -> None:
        self.has_answered = False
        self.failures = 0
        self.last_failure = 0.0
        self.reason = ""

    def check(self, request: httpx.Request) -> None:
        is_download = self.has_answered and request.method == "GET"
        if not is_download and self.failures >= _MAX_FAILURES and time.monotonic() - self.last_failure < _CUT_OFF_S:
            raise HubNotReachedError(self.reason)

    def fail(self, weight: int, does_what: str) -> None:
        was_reached = self.failures < _MAX_FAILURES
        self.failures += weight
        self.last_failure = time.monotonic()
        self.reason = f"the Hub at {constants.ENDPOINT} {does_what}"
        if was_reached and self.failures >= _MAX_FAILURES:
            logger.warning(f"{self.reason[0].upper()}{self.reason[1:]}: using cached files.")

    def succeed(self) -> None:
        self.has_answered, self.failures = True, 0


def hub_fault(error: BaseException) -> str | None:
    """Return why the Hub could not be reached, if that caused an error; None for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HubNotReachedError):
            return str(cause)
        if isinstance(cause, httpx.TransportError):
            return f"the Hub at {constants.ENDPOINT} does not answer ({type(cause).__name__}: {cause})"
        if isinstance(cause, HfHubHTTPError) and _is_refusal(cause.response.status_code):
            return f"the Hub at {constants.ENDPOINT} answers {cause.response.status_code}"
        if isinstance(cause, FileMetadataError):
            return NO_HUB.format(constants.ENDPOINT)
        if _refuses_token(cause):
            return f"the Hub at {constants.ENDPOINT} refuses the token (401): run `hf auth login`, or unset HF_TOKEN"
        cause = cause.__cause__ or cause.__context__
    return None


def repository_fault(error: BaseException) -> str | None:
    """Return what is wrong with the name of a repository or the access to it, if that caused an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            return (
                f"the repository is gated: accept its conditions on its page at {constants.ENDPOINT}, and run "
                "`hf auth login` or set HF_TOKEN"
            )
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"{constants.ENDPOINT} has no such repository: check the name, and for a private repository run "
                "`hf auth login` or set HF_TOKEN"
            )
        if isinstance(cause, RevisionNotFoundError):
            return "the repository has no such revision: check --revision (a branch, a tag or a commit)"
        cause = cause.__cause__ or cause.__context__
    return None


def _is_refusal(status: int) -> bool:
    return status == 429 or status >= 500


def _refuses_token(error: BaseException) -> bool:
    is_status = isinstance(error, HfHubHTTPError) and not isinstance(error, RepositoryNotFoundError)
    return is_status and error.response.status_code == 401


def _send(send: Any, reach: _Reach, request: httpx.Request, *, stream: bool = False, **options: Any) -> Any:
    request.extensions["timeout"] = _timeout(request, reach)
    if _is_auxiliary(request):
        request.extensions["timeout"] = dict.fromkeys(request.extensions["timeout"], _AUXILIARY_S)
        return send(request, stream=stream, **options)
    reach.check(request)
    try:
        response = send(request, stream=True, **options)
    except httpx.TransportError as error:
        reach.fail(2, f"does not answer ({type(error).__name__}: {error})")
        reach.check(request)
        if request.method == "HEAD" and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            # The client itself uses the cache only for connections that were never made, not for broken ones.
            raise HubNotReachedError(reach.reason) from error
        raise
    if _is_refusal(response.status_code):
        answer = f"answers {response.status_code} {response.reason_phrase}".strip()
        if (pause := _asked_pause(response)) > _MAX_PAUSE_S:
            response.close()
            reach.fail(_MAX_FAILURES, f"{answer} and asks to wait {pause} s")
            raise HubNotReachedError(reach.reason)
        reach.fail(1, answer)
    else:
        reach.succeed()
    response.stream = _WatchedStream(response.stream)
    if not stream:
        try:
            response.read()
        finally:
            response.close()
    return response


def _is_auxiliary(request: httpx.Request) -> bool:
    """Return whether the client sends a request for its own purposes, such as agent names and load counts."""
    counts = request.method == "HEAD" and request.url.host == "s3.amazonaws.com"
    return counts or request.url.path.endswith("/api/agent-harnesses")


def _timeout(request: httpx.Request, reach: _Reach) -> dict[str, float]:
    is_read = request.method in ("GET", "HEAD")
    longest = constants.HF_HUB_ETAG_TIMEOUT if reach.has_answered else constants.HF_HUB_ETAG_TIMEOUT / 2
    if reach.has_answered and request.method != "HEAD":
        longest = constants.HF_HUB_DOWNLOAD_TIMEOUT if is_read else _WRITE_S
    asked = request.extensions.get("timeout") or {}
    return {kind: min(asked.get(kind) or longest, longest) for kind in ("connect", "read", "write", "pool")}


def _asked_pause(response: httpx.Response) -> int:
    headers = response.headers
    asked = re.search(r"^\s*(\d{1,9})\s*$", headers.get("retry-after", ""))
    asked = asked or re.search(r"\br=0;t=(\d{1,9})", headers.get("ratelimit", ""))
    return int(asked[1]) if asked else 0


class _WatchedStream(httpx.SyncByteStream):
    """A response body that is aborted if it is too slow."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        start, n_bytes, patience = time.monotonic(), 0, 3 * constants.HF_HUB_DOWNLOAD_TIMEOUT
        for part in self._stream:
            n_bytes += len(part)
            seconds = time.monotonic() - start
            if seconds > patience and n_bytes < _MIN_RATE * seconds:
                raise HubNotReachedError(
                    f"the Hub at {constants.ENDPOINT} is too slow: {n_bytes:,} bytes in {seconds:.0f} s"
                )
            yield part

    def close(self) -> None:
        self._stream.close()
