"""What a template may say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from cubehook.delivery.templating.environment import METHODS, TESTS_KNOWN
from cubehook.delivery.templating.errors import TemplateError, perhaps, shown
from cubehook.delivery.templating.filters import ALIASES, FILTERS

_MAX_DEPTH: Final = 60

_VALUES: Final = (
    nodes.Add, nodes.And, nodes.Compare, nodes.Concat, nodes.CondExpr, nodes.Const, nodes.Dict, nodes.Div,
    nodes.Filter, nodes.FloorDiv, nodes.Getattr, nodes.Getitem, nodes.Keyword, nodes.List, nodes.Mod,
    nodes.Mul, nodes.Name, nodes.Neg, nodes.Not, nodes.Operand, nodes.Or, nodes.Pair, nodes.Pos, nodes.Slice,
    nodes.Sub, nodes.Test, nodes.Tuple,
)  # fmt: skip
_STATEMENTS: Final = (
    nodes.Assign, nodes.For, nodes.If, nodes.Output, nodes.Template, nodes.TemplateData, nodes.With,
)  # fmt: skip
_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.AssignBlock: "{% set NAME = VALUE %}: a block cannot be set",
    nodes.Block: "no {% block %}: a template stands by itself",
    nodes.CallBlock: "no {% call %}: there are no macros",
    nodes.Extends: "no {% extends %}: a template stands by itself",
    nodes.FilterBlock: "no {% filter %}: give each value its filter",
    nodes.FromImport: "no {% from %}: a template stands by itself",
    nodes.Import: "no {% import %}: a template stands by itself",
    nodes.Include: "no {% include %}: a template stands by itself",
    nodes.Macro: "no {% macro %}: a template is written out",
    nodes.NSRef: "{% set NAME = VALUE %}: there are no namespaces",
    nodes.Pow: "no **",
    nodes.Scope: "no {% autoescape %}: values are always written as JSON wants them",
}


def problems(tree: nodes.Template, names: Sequence[str]) -> Iterator[TemplateError]:
    """What `tree` says that a template may not say."""
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"} | {"loop"}
    known = [*names, *sorted(stored - {*names})]
    todo: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > _MAX_DEPTH:
            yield TemplateError("less of it inside each other", node.lineno)
            return
        inside = list(node.iter_child_nodes())
        refused = _REFUSED.get(type(node))
        if refused is not None:
            yield TemplateError(refused, node.lineno)
            continue
        if not isinstance(node, (*_VALUES, *_STATEMENTS)) and not isinstance(node, nodes.Call):
            yield TemplateError("a template without such a thing", node.lineno)
            continue
        match node:
            case nodes.Call():
                if not _is_method(node):
                    yield TemplateError(
                        "a filter, as in {{ NAME | FILTER }}: functions cannot be called, nor methods but "
                        + " and ".join(METHODS),
                        node.lineno,
                    )
                    inside.remove(node.node)
                else:
                    # The method itself is no key of anything.
                    assert isinstance(node.node, nodes.Getattr)
                    inside[inside.index(node.node)] = node.node.node
            case nodes.For(recursive=True):
                yield TemplateError("no recursive loop", node.lineno)
            case nodes.Name(ctx="load") if node.name not in known:
                name = shown(node.name)
                yield TemplateError(f"a known name{perhaps(node.name, known)}, and not {name}", node.lineno)
            case nodes.Filter():
                yield from _named(node, "filter", [*FILTERS, *ALIASES])
            case nodes.Test():
                yield from _named(node, "test", TESTS_KNOWN)
        todo += [(child, depth + 1) for child in reversed(inside)]


def _named(node: nodes.Filter | nodes.Test, kind: str, known: Sequence[str]) -> Iterator[TemplateError]:
    if node.name not in known:
        hint = perhaps(node.name, known) or f" ({', '.join(known)})"
        yield TemplateError(f"a known {kind}{hint}, and not {shown(node.name)}", node.lineno)
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield TemplateError(f"arguments of the {kind} one by one, without *", node.lineno)


def _is_method(call: nodes.Call) -> bool:
    simple = not (call.kwargs or call.dyn_args or call.dyn_kwargs) and len(call.args) == 1
    return simple and isinstance(call.node, nodes.Getattr) and call.node.attr in METHODS


def _size(node: nodes.Node) -> int:
    return 1 + sum(map(_size, node.iter_child_nodes()))


def _is_constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict | nodes.Pair):
        return all(map(_is_constant, node.iter_child_nodes()))
    return isinstance(node, nodes.Const)


class Metering(NodeTransformer):
    """Makes a tree pay for what it does, and mark what it writes.  `texts` are the template's own texts."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, int]] = []

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        written: list[nodes.Expr] = []
        for child in node.nodes:
            if isinstance(child, nodes.TemplateData):
                index = nodes.Const(len(self.texts), lineno=child.lineno)
                self.texts.append((child.data, child.lineno))
                written.append(_inner("text", index))
            else:
                line = nodes.Const(child.lineno, lineno=child.lineno)
                written.append(_inner("out", self.visit(child), line))
        node.nodes = written
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        weight = nodes.Const(sum(map(_size, node.iter_child_nodes())), lineno=node.lineno)
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _inner("each", node.iter, weight)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _inner("concat", *node.nodes)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        method = node.node
        assert isinstance(method, nodes.Getattr)
        return _inner(
            method.attr, self._weighed(self.visit(method.node)), self._weighed(self.visit(node.args[0]))
        )

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        node.node = self._weighed(node.node)
        node.args = [self._weighed(each) for each in node.args]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._weighed(node.node)
        else:
            node.arg = self._weighed(node.arg)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._weighed(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._weighed(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx == "store" else self._weighed(node)

    def _weighed(self, node: nodes.Expr) -> nodes.Expr:
        return node if _is_constant(node) else _inner("weighed", node)


def _inner(name: str, first: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(first, f" {name}", list(args), [], None, None, lineno=first.lineno)
