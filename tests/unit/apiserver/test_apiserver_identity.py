"""Users from headers and files; bodies in YAML; names in certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgesite.apiserver import yamlbody
from edgesite.apiserver.authn import Reviewed, StaticTokens, User, read_token_file
from edgesite.apiserver.credentials import server_names
from edgesite.apiserver.nodeauth import NodeRestriction
from edgesite.hookspecs import AdmissionRequest
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN


def test_tokens() -> None:
    tokens = StaticTokens({"secret": User("bob")}, ("api", "cluster"))
    assert tokens.user_of("secret") == Reviewed(User("bob"))
    assert tokens.user_of("secret", ("vault", "api")) == Reviewed(User("bob"), ("api",))
    with pytest.raises(ValueError, match="not meant for"):
        tokens.user_of("secret", ("vault",))
    assert tokens.user_of("other") is None
    assert "secret" not in repr(vars(tokens))


def test_a_node_makes_no_csi_node_of_another() -> None:
    guard = NodeRestriction(None, None)  # type: ignore[arg-type]
    row = next(one for one in BUILTIN if one.plural == "csinodes")
    assert guard.wants(row, "CREATE", "")
    for node, allowed in (("edge-1", True), ("edge-2", False)):
        request = AdmissionRequest(
            "CREATE", row, "", "", "edge-1", f"system:node:{node}", ("system:nodes",), {"metadata": {}}, None
        )
        if allowed:
            guard.admit(request)
        else:
            with pytest.raises(ApiError, match="same name"):
                guard.admit(request)


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
    text = b"a: 1\n2: x\ntrue: z\nwhen: 2020-01-01\nlist: [1, 2.5, null, 12:30, 0644, 0x1f, 1_000, .5, -3, 1e3, 'yes', yes]\n"
    assert yamlbody.parse(text) == {
        "a": 1,
        "2": "x",
        "true": "z",
        "when": "2020-01-01",
        "list": [1, 2.5, None, "12:30", 420, 31, 1000, 0.5, -3, 1000.0, "yes", True],
    }
    merged = b"base: &b {x: 1, y: 2}\nmade: {<<: *b, y: 3}\nagain: *b\nblock: |\n  two\n  lines\nbytes: !!binary dg==\n"
    assert yamlbody.parse(merged) == {
        "base": {"x": 1, "y": 2},
        "made": {"y": 3, "x": 1},
        "again": {"x": 1, "y": 2},
        "block": "two\nlines\n",
        "bytes": "v",
    }
    assert yamlbody.parse(b"") is None
    assert yamlbody.parse(b"a: 1\n---\nb: 2\n") == {"a": 1}
    assert yamlbody.parse(b"--- <<") is None


@pytest.mark.parametrize("opening", [b"[", b"{a: ", b"- ", b"? "])
def test_depth_is_bounded(opening: bytes) -> None:
    for times in (yamlbody.MAX_DEPTH + 1, 500_000):
        with pytest.raises(ApiError, match=r"max depth|a key must be"):
            yamlbody.parse(opening * times)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**62), 2**62)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["C"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["C"])), inner),
    )
)
@example({"0E0": "1e3", "more": ["-.5E-7", "1_0", ".inf", "0x1F", "07", "+1"]})
def test_what_is_written_comes_back(value: object) -> None:
    assert yamlbody.parse(yamlbody.render(value)) == value


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
