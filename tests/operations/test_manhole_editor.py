"""From bytes to keys, and from keys to texts."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations.manhole.editor import Editor, Wish
from cubehook.operations.manhole.interpreter import Interpreter
from cubehook.operations.manhole.keys import LONGEST_PASTE, Key, Keys
from cubehook.operations.manhole.screen import cells

_SEQUENCES = [
    (b"\x1b[A", "up"), (b"\x1bOB", "down"), (b"\x1b[1;5D", "alt-b"), (b"\x1b[3~", "delete"),
    (b"\x1b[H", "home"), (b"\x1bb", "alt-b"), (b"\x1b\x7f", "alt-backspace"), (b"\r", "enter"),
    (b"\x7f", "backspace"),
    (b"\t", "tab"), (b"\x03", "ctrl-c"), (b"\x12", "ctrl-r"), (b"\x08", "backspace"),
]  # fmt: skip


class KeysTests(SynchronousTestCase):
    def test_keys_have_names(self) -> None:
        for data, name in _SEQUENCES:
            self.assertEqual(Keys().feed(data), [Key(name)], data)

    def test_a_key_may_come_in_parts(self) -> None:
        for data, name in _SEQUENCES:
            keys = Keys()
            found = [key for byte in data for key in keys.feed(bytes([byte]))]
            self.assertEqual(found, [Key(name)], data)

    def test_text_in_utf_8_comes_whole_however_it_is_cut(self) -> None:
        keys = Keys()
        found = [key for byte in "é漢😀".encode() for key in keys.feed(bytes([byte]))]
        self.assertEqual("".join(key.text for key in found), "é漢😀")
        self.assertEqual({key.name for key in found}, {"text"})

    def test_a_line_may_end_in_any_way(self) -> None:
        for end in (b"\r", b"\n", b"\r\n"):
            names = [key.name for key in Keys().feed(b"a" + end + b"b" + end)]
            self.assertEqual(names, ["text", "enter", "text", "enter"], end)

    def test_a_paste_is_one_key(self) -> None:
        keys = Keys()
        self.assertEqual(keys.feed(b"\x1b[200~a\r\n\x1b[Ab\x1b[2"), [])
        self.assertEqual(keys.feed(b"01~c"), [Key("paste", "a\n\x1b[Ab"), Key("text", "c")])

    def test_a_paste_that_does_not_end_is_cut(self) -> None:
        keys = Keys()
        keys.feed(b"\x1b[200~")
        [key] = keys.feed(b"x" * (LONGEST_PASTE + 1))
        self.assertEqual(len(key.text), LONGEST_PASTE + 1)
        self.assertEqual(keys.feed(b"y"), [Key("text", "y")])

    def test_what_is_no_key_is_nothing(self) -> None:
        for data in (b"\x1b[99;99Z", b"\x1b[?1;2c", b"\xc2\x9b"):
            self.assertEqual(Keys().feed(data), [], data)

    @given(st.lists(st.binary(max_size=12)))
    def test_anything_may_come(self, parts: list[bytes]) -> None:
        keys = Keys()
        for part in parts:
            for key in keys.feed(part):
                if key.name == "text":
                    self.assertFalse(any(each < " " or "\x7f" <= each <= "\x9f" for each in key.text))


def _complete(text: str) -> bool:
    return Interpreter({}, None).complete(text)  # type: ignore[arg-type]


class EditorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.history: list[str] = []
        self.editor = Editor(self.history, _complete)

    def press(self, *names: str) -> Wish | None:
        """Press keys, those that have no name as text; what the last asks for."""
        wish = None
        for name in names:
            key = Key(name) if "-" in name[1:] or name in _NAMED else Key("text", name)
            wish = self.editor.key(key)
        return wish

    def shown(self) -> str:
        """The text with a bar where the cursor stands."""
        return f"{self.editor.text[: self.editor.cursor]}|{self.editor.text[self.editor.cursor :]}"

    def test_moving_and_taking_away(self) -> None:
        for keys, expected in (
            (("left",), "one two thre|e"),
            (("home",), "|one two three"),
            (("ctrl-a", "right"), "o|ne two three"),
            (("alt-b",), "one two |three"),
            (("alt-b", "alt-b", "alt-f"), "one two| three"),
            (("backspace",), "one two thre|"),
            (("home", "delete"), "|ne two three"),
            (("ctrl-w",), "one two |"),
            (("ctrl-u",), "|"),
            (("alt-b", "ctrl-k"), "one two |"),
            (("alt-b", "ctrl-k", "home", "ctrl-y"), "three|one two "),
            (("home", "alt-d"), "| two three"),
            (("home", "ctrl-d"), "|ne two three"),
            (("right", "delete"), "one two three|"),
        ):
            self.editor.clear()
            self.press("one two three", *keys)
            self.assertEqual(self.shown(), expected, keys)

    def test_a_complete_text_is_run(self) -> None:
        self.assertIs(self.press("1 + 1", "enter"), Wish.RUN)
        self.assertEqual(self.editor.text, "1 + 1")
        self.editor.clear()
        self.assertIs(self.press("await x", "enter"), Wish.RUN)
        self.editor.clear()
        self.assertIs(self.press("x ==", "enter"), Wish.RUN)

    def test_a_block_goes_on_until_an_empty_line(self) -> None:
        self.assertIsNone(self.press("async for a in b:", "enter"))
        self.assertEqual(self.shown(), "async for a in b:\n    |")
        self.assertIsNone(self.press("if a:", "enter", "print(a)", "enter"))
        self.assertEqual(self.shown(), "async for a in b:\n    if a:\n        print(a)\n        |")
        self.assertIs(self.press("enter"), Wish.RUN)

    def test_brackets_go_on_until_they_close(self) -> None:
        self.assertIsNone(self.press("[1,", "enter"))
        self.assertIs(self.press("2]", "enter"), Wish.RUN)

    def test_lines_that_come_together_bring_their_own_indentation(self) -> None:
        for key in Keys().feed(b"for a in b:\r    if a:\r        c\r    d"):
            self.editor.key(key, more=True)
        self.assertEqual(self.editor.text, "for a in b:\n    if a:\n        c\n    d")

    def test_a_paste_keeps_its_empty_lines(self) -> None:
        self.editor.key(Key("paste", "def f():\n\ta\n\n\tb\n\nf()\n"))
        self.assertEqual(self.editor.text, "def f():\n    a\n\n    b\n\nf()")
        self.assertIs(self.press("enter"), Wish.RUN)

    def test_a_paste_commands_nothing(self) -> None:
        self.editor.key(Key("paste", "a\x1b[2J\x03b"))
        self.assertEqual(self.editor.text, "a[2Jb")

    def test_indentation_goes_at_once(self) -> None:
        self.press("if a:", "enter", "tab", "backspace")
        self.assertEqual(self.shown(), "if a:\n    |")
        self.press("backspace")
        self.assertEqual(self.shown(), "if a:\n|")

    def test_former_texts_that_begin_so(self) -> None:
        self.history += ["cubes", "calls", "cubes.hq", "status()"]
        self.press("cu", "up")
        self.assertEqual(self.shown(), "cubes.hq|")
        self.press("up")
        self.assertEqual(self.shown(), "cubes|")
        self.assertIs(self.press("up"), Wish.RING)
        self.press("down", "down")
        self.assertEqual(self.shown(), "cu|")
        self.press("ctrl-u", "up", "up", "up")
        self.assertEqual(self.shown(), "calls|")

    def test_up_moves_within_a_block_first(self) -> None:
        self.history.append("former")
        self.editor.key(Key("paste", "one:\n    two"))
        self.press("up")
        self.assertEqual(self.shown(), "one:|\n    two")
        self.press("up")
        self.assertEqual(self.shown(), "one:|\n    two")
        self.press("down", "end")
        self.assertEqual(self.shown(), "one:\n    two|")

    def test_search(self) -> None:
        self.history += ["redeliver('A')", "cubes", "redeliver('B')", "calls"]
        self.press("ctrl-r", "deliver")
        self.assertEqual(self.shown(), "redeliver|('B')")
        self.assertIn("deliver", self.editor.prompt)
        self.press("ctrl-r")
        self.assertEqual(self.shown(), "redeliver|('A')")
        self.assertIs(self.press("ctrl-r"), Wish.RING)
        self.press("left")
        self.assertEqual(self.shown(), "redelive|r('A')")
        self.assertEqual(self.editor.prompt, ">>> ")

    def test_leaving_and_interrupting(self) -> None:
        self.assertIs(self.press("ctrl-d"), Wish.LEAVE)
        self.assertIs(self.press("x", "ctrl-c"), Wish.INTERRUPT)
        self.assertIs(self.press("ctrl-l"), Wish.REDRAW)
        self.assertIs(self.press("tab"), Wish.COMPLETE)

    @example("abab\nb", 8, 4)
    @given(
        st.text(st.sampled_from("ab \né漢\u0301"), max_size=60),
        st.integers(min_value=8, max_value=30),
        st.integers(min_value=0, max_value=60),
    )
    def test_the_layout_holds_the_text_and_the_cursor(self, text: str, width: int, cursor: int) -> None:
        editor = Editor([], _complete)
        editor.text, editor.cursor = text, min(cursor, len(text))
        rows, row, column = editor.layout(width)
        self.assertTrue(all(cells(each) <= width for each in rows))
        self.assertLess(row, len(rows))
        self.assertLess(column, width)
        self.assertLessEqual(column, cells(rows[row]))
        joined = "".join(rows).removeprefix(">>> ").replace("... ", "")
        self.assertEqual(joined, text.replace("\n", ""))

    def test_a_text_has_an_end(self) -> None:
        self.editor.insert("x" * 65_000)
        self.assertIs(self.press("y" * 1_000), Wish.RING)
        self.assertEqual(len(self.editor.text), 65_000)


_NAMED = {"left", "right", "up", "down", "home", "end", "enter", "tab", "backspace", "delete"}
