"""What went wrong between this machine and the Hub, in one sentence that names the fix."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError
from huggingface_hub.utils import LocalTokenNotFoundError


LOG_IN = "log in by `hf auth login` or set HF_TOKEN"
REASONS = {
    401: f"it does not exist, or needs a token that may see it: check the name, {LOG_IN}",
    403: f"the token lacks the right: use one with write access to that owner's repositories, {LOG_IN}",
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
    except (HTTPError, OSError) as error:
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
