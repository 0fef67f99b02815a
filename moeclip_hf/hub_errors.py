"""What went wrong between this machine and the Hub, in one sentence that names the fix."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import LocalTokenNotFoundError


LOG_IN = "log in by `hf auth login` or set HF_TOKEN"
REASONS = {
    401: f"the Hub has no such repository, or no token that may use it was given: check the name, {LOG_IN}",
    403: "the token lacks the right: use one that may write to that owner's repositories",
    404: "the Hub has no such repository or file: check the name",
    429: "too many requests for now",
}


def describe_hub_error(error: BaseException) -> str | None:
    """Finds the answer of the Hub, or the broken connection, behind an exception.

    Args:
        error (`BaseException`): Any exception; those that caused it are looked at too.

    Returns:
        `str` or `None`: One sentence without a full stop, None if the Hub has nothing to do with it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalTokenNotFoundError):
            return f"no token is on this machine: {LOG_IN}"
        if isinstance(cause, RemoteEntryNotFoundError):
            return None  # the Hub works: the repository lacks a file, and who asked for it knows what that means
        if isinstance(cause, GatedRepoError):
            return f"its owner asks every user to accept terms: accept them on its page and {LOG_IN}"
        if isinstance(cause, HfHubHTTPError):
            return _describe_answer(cause)
        if isinstance(cause, HTTPError):
            return f"the connection failed ({cause or type(cause).__name__}): try again"
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into an `OSError` of one line.

    Args:
        action (`str`): What is tried, e.g. `"Pushing to user/name"`.

    Raises:
        OSError: If the Hub refuses, or cannot be reached.
    """
    try:
        yield
    except (HTTPError, OSError, RuntimeError) as error:  # huggingface_hub wraps a failed upload into a RuntimeError
        reason = describe_hub_error(error)
        if reason is None:
            raise
        raise OSError(f"{action} failed: {reason}.") from error


def _describe_answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status >= 500:
        return f"the Hub answers {status}, which is its own trouble: try again later"
    reason = REASONS.get(status, f"the Hub answers {status} ({error.server_message or 'without a reason'})")
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return f"{reason}: try again {f'in {wait} seconds' if wait else 'later'}"
    return reason
