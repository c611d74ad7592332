"""What JSON may not hold, and that finding out takes neither time nor memory."""

import pytest

from fxprune.ir.strict_json import CONTAINERS, DEPTH, check_depth, parsed


@pytest.mark.parametrize(("text", "message"), [
    (b'{"a": 1, "b": 1, "a": 2}', "the key 'a' is duplicated"), (b'{"a": NaN}', "NaN is not a number"),
    (b'{"a": -Infinity}', "-Infinity is not a number"), (b'{"a": 1e999}', "1e999 is not a number"),
    (b'{"a": ' + b"9" * 5000 + b"}", "is not a number that may stand here"), (b"{", "Expecting property name"),
    (b"[" * 100_000, "nested too deeply"), (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "nested too deeply"),
    (b"\xff", "utf-8"), (b"[" + b"[]," * CONTAINERS + b"[]]", "more than 1,048,576 lists and objects"),
])
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parsed(text)


def test_many_repeated_keys_take_no_time():
    text = "{" + ",".join(f'"{k}": 0' for k in range(100_000)) + ', "99999": 1}'
    with pytest.raises(ValueError, match="the key '99999' is duplicated"):
        parsed(text)


def test_what_is_as_deep_as_allowed():
    text = "[" * DEPTH + "]" * DEPTH
    assert parsed(text) is not None
    with pytest.raises(ValueError, match="more than 64 levels"):
        check_depth(((parsed(text),),))
