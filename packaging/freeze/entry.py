"""Where the frozen program begins."""

import os
import sys


def _give_back_library_path() -> None:
    """The loader's path to our libraries is for this process alone: programs that it starts have libraries of their own."""
    before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    if before is not None:
        os.environ["LD_LIBRARY_PATH"] = before
    else:
        os.environ.pop("LD_LIBRARY_PATH", None)


def _is_multiprocessing(arguments: list[str]) -> bool:
    """Whether a plugin's `multiprocessing` started us, which takes any program for a Python interpreter."""
    return "--multiprocessing-fork" in arguments[:2] or _code(arguments).startswith("from multiprocessing.")


def _code(arguments: list[str]) -> str:
    return arguments[arguments.index("-c") + 1] if "-c" in arguments[:-1] else ""


def _serve_multiprocessing(arguments: list[str]) -> None:
    if "--multiprocessing-fork" in arguments:
        from multiprocessing import spawn

        spawn.freeze_support()  # type: ignore[attr-defined]
    else:  # its resource tracker, or its fork server
        exec(_code(arguments), {"__name__": "__main__"})


_give_back_library_path()
if _is_multiprocessing(sys.argv[1:]):
    _serve_multiprocessing(sys.argv[1:])
    sys.exit(0)

from edgesite.cli.main import main  # noqa: E402

sys.exit(main())
