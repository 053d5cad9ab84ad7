"""Users from headers and files; bodies in YAML; names in certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.apiserver import yamlbody
from edgesite.apiserver.authn import StaticTokens, User, read_token_file
from edgesite.apiserver.credentials import server_names
from edgesite.kube.errors import ApiError


def test_tokens() -> None:
    tokens = StaticTokens({"secret": User("bob")})
    assert tokens.user_of("secret") == User("bob")
    assert tokens.user_of("other") is None
    assert "secret" not in repr(vars(tokens))


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text('a,bob,1\n\nb,eve,2,"x, y"\n')
    assert read_token_file(path) == {
        "a": User("bob", ("system:authenticated",), "1"),
        "b": User("eve", ("x", "y", "system:authenticated"), "2"),
    }
    path.write_text("a,bob,1\nb,eve\n")
    with pytest.raises(ValueError, match=":2: a line is"):
        read_token_file(path)


def test_server_names() -> None:
    names = server_names("0.0.0.0", "192.0.2.7", ["edge.example.com", "localhost"], "10.96.0.1")
    assert {"localhost", "127.0.0.1", "192.0.2.7", "edge.example.com", "10.96.0.1"} <= set(names)
    assert "0.0.0.0" not in names
    assert names.count("localhost") == 1


def test_yaml_becomes_json() -> None:
    text = b"a: 1\n2: x\ntrue: y\nwhen: 2020-01-01\nlist: [1, 2.5, null]\n"
    assert yamlbody.parse(text) == {"a": 1, "2": "x", "true": "y", "when": "2020-01-01", "list": [1, 2.5, None]}


@pytest.mark.parametrize(
    "text",
    [
        b"a: [",
        b"a: .nan",
        b"? [1]\n: 2",
        b"!!python/object/apply:os.system [x]",
        b"\xff\xfe\xfd",
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%b]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
    ],
)
def test_yaml_that_is_no_json(text: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        yamlbody.parse(text)
    assert refused.value.code == 400


@given(st.binary(max_size=200))
def test_any_yaml_is_read_or_refused(data: bytes) -> None:
    code = 400
    try:
        yamlbody.parse(data)
    except ApiError as exc:
        code = exc.code
    assert code == 400
