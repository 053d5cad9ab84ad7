"""Put on PYTHONPATH of a program under measurement: on SIGUSR1 it writes the names of its modules to the file of MODULES_FILE."""

import os
import signal
import sys


def _write(number: int, frame: object) -> None:
    path = os.environ["MODULES_FILE"]
    with open(f"{path}.part", "w") as out:
        out.write("\n".join(sorted(sys.modules)))
    os.replace(f"{path}.part", path)


signal.signal(signal.SIGUSR1, _write)
