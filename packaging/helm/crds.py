"""Writes the chart's custom resource definitions: those that ``edgesite cloud --install-crds`` makes.

python packaging/helm/crds.py
"""

from __future__ import annotations

from pathlib import Path

import yaml

from edgesite.cloud.crds import definitions

FOLDER = Path(__file__).resolve().parent / "cloudcore" / "crds"


def files() -> dict[str, str]:
    """Return name → text of each file."""
    made = {}
    for one in definitions():
        spec = one["spec"]
        name = f"{spec['group'].partition('.')[0]}_{spec['versions'][0]['name']}_{spec['names']['plural']}.yaml"
        made[name] = yaml.safe_dump(one, sort_keys=False)
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.yaml"):
        old.unlink()
    for name, text in files().items():
        (FOLDER / name).write_text(text)
