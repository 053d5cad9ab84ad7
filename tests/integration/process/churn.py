"""Makes and removes containers on a process runtime until it is killed: the victim of test_process_crash."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from process_site import make_site, process_runtime


async def main(directory: Path) -> None:
    async with process_runtime(directory / "process") as runtime:
        for old in await runtime.list_sandboxes():
            await runtime.stop_sandbox(old.id)
            await runtime.remove_sandbox(old.id)
        print("ready", flush=True)
        while True:
            site = await make_site(runtime, directory)
            container_id = await site.begin("sleep 86399 & sleep 86399")
            await site.finish("echo x; exit 3")
            await runtime.stop_container(container_id, 0.01)
            await runtime.remove_container(container_id)
            await runtime.stop_sandbox(site.sandbox_id)
            await runtime.remove_sandbox(site.sandbox_id)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
