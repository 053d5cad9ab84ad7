"""What a device of the frozen program measures goes into a MariaDB: its driver runs in the edge's own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest
from e2e_site import Site, eventually

pytestmark = pytest.mark.timeout(400)  # the first test that wants the frozen program freezes it
GROUP = "devices.kubeedge.io/v1beta1"
MODEL = {
    "apiVersion": GROUP,
    "kind": "DeviceModel",
    "metadata": {"name": "thermostat"},
    "spec": {
        "protocol": "virtual",
        "properties": [{"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"}],
    },
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """The socket of a MariaDB with a database ``plant`` that its user ``edge`` may write."""
    where, socket = tmp_path / "db", tmp_path / "s"
    same = ["--no-defaults", f"--datadir={where}", "--user=root"]
    made = ["mariadb-install-db", *same, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    program = shutil.which("mariadbd", path="/usr/sbin:/usr/bin") or "mariadbd"
    options = [f"--socket={socket}", "--skip-networking", "--innodb-buffer-pool-size=8M"]
    with (tmp_path / "db.log").open("wb") as log, subprocess.Popen([program, *same, *options], stderr=log) as server:
        try:
            eventually(socket.exists, "the database", 30)
            ask(socket, "CREATE DATABASE plant")
            ask(socket, "CREATE USER edge@localhost IDENTIFIED BY 's3cret'")
            ask(socket, "GRANT ALL ON plant.* TO edge@localhost")
            yield socket
        finally:
            server.kill()


def ask(socket: Path, statement: str) -> list[tuple[str]]:
    connection = pymysql.connect(unix_socket=str(socket), user="root", autocommit=True)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_a_device_fills_a_table(database: Path, bundle: Path, tmp_path: Path) -> None:
    client = {"addr": f"unix://{database}", "database": "plant", "userName": "edge"}
    device = {
        "apiVersion": GROUP,
        "kind": "Device",
        "metadata": {"name": "hall"},
        "spec": {
            "deviceModelRef": {"name": "thermostat"},
            "nodeName": "node1",
            "protocol": {"protocolName": "virtual", "configData": {"machine": "thermostat"}},
            "properties": [
                {
                    "name": "temperature",
                    "reportCycle": 1000,
                    "pushMethod": {"dbMethod": {"mysql": {"mysqlClientConfig": client}}},
                }
            ],
        },
    }
    with closing(Site(tmp_path, program=bundle / "edgesite")) as site:
        site.start(env={**os.environ, "PASSWORD": "s3cret"})
        site.kubectl()(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [MODEL, device]})
        )
        tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'default/hall/temperature'"
        eventually(lambda: ask(database, tables) == [(1,)], "the property's table", 30)
        eventually(lambda: len(ask(database, "SELECT field FROM plant.`default/hall/temperature`")) >= 2, "values", 30)
        for (value,) in ask(database, "SELECT field FROM plant.`default/hall/temperature`"):
            assert -50 < float(value) < 100
