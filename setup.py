"""Build step beside pyproject.toml: the API's definitions are distilled from a build requirement into the package."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Writes edgesite/kube/data before the package is collected, for wheels and editable installs alike."""

    def run(self) -> None:
        root = Path(__file__).resolve().parent
        sys.path.insert(0, str(root))
        from edgesite.kube import distil

        distil.write(root / "edgesite" / "kube" / "data")
        super().run()


setup(cmdclass={"build_py": BuildPy})
