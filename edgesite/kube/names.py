"""Names: what is generated, and what each kind of name may look like, in the words of the API server.

A check returns the list of what is wrong (empty: fine); a caller puts each into a cause, with the field's path.

Units   Lengths are characters, of ASCII wherever a name is valid.
Errors  None raised.
State   None. Randomness is an argument.
Source  RFC 1123, RFC 1035; apimachinery pkg/util/validation and pkg/util/rand (limits, alphabet, regular expressions shown to users).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

__all__ = [
    "config_map_key_problems",
    "dns1035_label_problems",
    "dns1123_label_problems",
    "dns1123_subdomain_problems",
    "env_name_problems",
    "generate",
    "label_value_problems",
    "path_segment_problems",
    "port_name_problems",
    "qualified_name_problems",
    "random_suffix",
    "safe_encode",
]

ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  #: No vowels and no look-alikes, so that no words come out.
SUFFIX_CHARS: Final = 5
MAX_GENERATED_BASE: Final = 63 - SUFFIX_CHARS

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = f"({_QUALIFIED})?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_PATTERNS: Final = {
    text: re.compile(text, re.ASCII) for text in (_LABEL, _SUBDOMAIN, _DNS1035, _QUALIFIED, _LABEL_VALUE, _CONFIG_KEY)
}


def random_suffix(random: random.Random, chars: int = SUFFIX_CHARS) -> str:
    """Return what generateName appends."""
    return "".join(random.choices(ALPHABET, k=chars))


def generate(base: str, random: random.Random) -> str:
    """Return a name from a generateName; a long base is cut so that the name stays a label."""
    return base[:MAX_GENERATED_BASE] + random_suffix(random)


def safe_encode(text: str) -> str:
    """Map each character into the alphabet of generated names, as pod-template-hash labels are made."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in text.encode())


def dns1123_label_problems(value: str) -> list[str]:
    what = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character"
    )
    problems = _too_long(value, 63)
    if "." in value and _PATTERNS[_SUBDOMAIN].fullmatch(value):
        return [*problems, "must not contain dots"]
    return problems + _mismatch(value, _LABEL, what, "my-name", "123-abc")


def dns1123_subdomain_problems(value: str) -> list[str]:
    what = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return _too_long(value, 253) + _mismatch(value, _SUBDOMAIN, what, "example.com")


def dns1035_label_problems(value: str) -> list[str]:
    what = (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character"
    )
    return _too_long(value, 63) + _mismatch(value, _DNS1035, what, "my-name", "abc-123")


def qualified_name_problems(value: str) -> list[str]:
    """Label keys, annotation keys, taints, extended resources: ``[prefix/]name``."""
    prefix, slash, name = value.rpartition("/")
    rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    examples = ("MyName", "my.name", "123-abc")
    problems = []
    if "/" in prefix:
        text = _with_pattern(f"a valid label key {rule}", _QUALIFIED, examples)
        return [f"{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems += [f"prefix part {one}" for one in dns1123_subdomain_problems(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    problems += [f"name part {one}" for one in _too_long(name, 63)]
    return problems + [f"name part {one}" for one in _mismatch(name, _QUALIFIED, rule, *examples)]


def label_value_problems(value: str) -> list[str]:
    what = (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return _too_long(value, 63) + _mismatch(value, _LABEL_VALUE, what, "MyValue", "my_value", "12345")


def config_map_key_problems(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    examples = ("key.name", "KEY_NAME", "key-name")
    return _too_long(value, 253) + _mismatch(value, _CONFIG_KEY, what, *examples) + _dots(value)


def env_name_problems(value: str) -> list[str]:
    """Names of environment variables: any printable ASCII but '='."""
    if not value or any(not " " <= one <= "~" or one == "=" for one in value):
        return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
    return []


def path_segment_problems(value: str) -> list[str]:
    """Names that only need to fit into a URL's path, such as those of RBAC objects."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{one}'" for one in ("/", "%") if one in value]


def port_name_problems(value: str) -> list[str]:
    """Names of container ports (IANA service names)."""
    problems = ["must be no more than 15 characters"] if len(value) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value[:1] == "-" or value[-1:] == "-":
        problems.append("must not begin or end with a hyphen")
    return problems


def _too_long(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(value.encode()) > limit else []


def _mismatch(value: str, pattern: str, what: str, *examples: str) -> list[str]:
    return [] if _PATTERNS[pattern].fullmatch(value) else [_with_pattern(what, pattern, examples)]


def _with_pattern(what: str, pattern: str, examples: tuple[str, ...]) -> str:
    shown = " or ".join(f"'{one}', " for one in examples)
    return f"{what} (e.g. {shown}regex used for validation is '{pattern}')"


def _dots(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []
