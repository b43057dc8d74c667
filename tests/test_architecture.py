"""The rooms, as docs/architecture.md shows them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ROOT / "cubehook"
BESIDE = ("simulator", "testing")
"""Rooms that stand beside the house."""


def floors() -> dict[str, int]:
    """The rooms of the picture, each with its floor, from the top."""
    picture = (ROOT / "docs" / "architecture.md").read_text()
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*\|$", picture, re.M)]
    return {
        name.removesuffix(".py").rstrip("/"): floor
        for floor, row in enumerate(rows)
        for name in re.findall(r"`([a-z_/]+?(?:\.py|/))`", row)
    }


def room(module: str, rooms: dict[str, int]) -> str | None:
    """The innermost room in which a module is, such as `net/tls` in `net`."""
    parts = module.split("/")
    found = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in found if name in rooms), None)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Our modules that one imports when it runs, with the lines."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            top, _, rest = node.module.partition(".")
            if top == "cubehook":
                names = [rest.replace(".", "/")] if rest else []
                for name in names or [each.name for each in node.names]:
                    whole = [f"{name}/{each.name}" for each in node.names]
                    inner = [each for each in whole if (HOUSE / each).is_dir()]
                    for each in inner or [name]:
                        yield node.lineno, each
        waiting.extend(ast.iter_child_nodes(node))


class Floors(SynchronousTestCase):
    def test_every_module_has_a_room(self) -> None:
        rooms = floors()
        self.assertGreater(len(rooms), 30)
        homeless = [
            module for module, _ in self.modules() if room(module, rooms) is None and module != "__init__"
        ]
        self.assertEqual(homeless, [])
        for name in rooms:
            self.assertTrue((HOUSE / name).is_dir() or (HOUSE / f"{name}.py").exists(), name)

    def test_nothing_is_imported_from_a_floor_above(self) -> None:
        rooms = floors()
        upwards = []
        for module, path in self.modules():
            own = room(module, rooms)
            if own is None or own in BESIDE:
                continue
            for line, other in imported(path):
                there = room(other, rooms)
                if there is not None and rooms[there] < rooms[own]:
                    upwards.append(f"{path.relative_to(ROOT)}:{line} ({own}) imports {other}")
        self.assertEqual(upwards, [])

    def test_the_house_needs_nothing_that_stands_beside_it(self) -> None:
        found = [
            f"{path.relative_to(ROOT)}:{line}"
            for module, path in self.modules()
            for line, other in imported(path)
            if module.split("/")[0] not in (*BESIDE, "cli", "tap") and other.split("/")[0] in BESIDE
        ]
        self.assertEqual(found, [])

    def modules(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(HOUSE.rglob("*.py")):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            yield "/".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path
