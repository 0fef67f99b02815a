"""What every process that draws pictures does first."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Makes this process end once its parent is gone: one that is killed has no time to stop those it started."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
