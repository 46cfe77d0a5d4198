import pytest

from reflux.components.core.errors import UserError, printable


@pytest.mark.parametrize("sign", ["\x00", "\n", "\r", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\u2069"])
def test_what_a_terminal_obeys_is_escaped(sign):
    assert printable(f"a{sign}b") == f"a{ascii(sign)[1:-1]}b"
    assert str(UserError(f"a{sign}b is no image.")) == f"a{ascii(sign)[1:-1]}b is no image."


@pytest.mark.parametrize("text", ["Füchse, 狐, ثعلب, 🦊", "two\tcells", "C:\\new", "👩\u200d🚀"])
def test_what_is_only_text_stays(text):
    assert printable(text) == text
