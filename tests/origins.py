"""Where the values of an assertion come from: the code, or the keyboard of its author.

Of the code is what the package or a library of the field computes, and what a chapter names: the
assertion fails when that changes. Typed is a literal, and what is made of literals alone by Python
itself, by its standard library, by `ninlab.units`, which writes what it is given, or by one of
`HOLDERS`. A name is what it was last bound to, or what was put into it since. What a function
beside a chapter returns is typed unless its body or its arguments hold something of the code. A
field that a dataclass of the package was given is what was given: to read it back asks nothing.
"""

from __future__ import annotations

import ast
import dataclasses
import pydoc
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import TypeGuard

HOLDERS = {"array", "DataFrame", "Series", "Size", "tensor"}
"""What libraries call the types that only hold what they are given."""

_PURE = {*sys.stdlib_module_names, "ninlab.units"}

_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


def empty_assertions(chapter: Iterable[str], parts: Iterable[str]) -> list[str]:
    """The text of each test or comparison that proves nothing among the assertions of a page.

    chapter holds the sources of its cells, parts those of its assertions, each in their order. A
    test proves nothing where all of it is typed. A comparison in it proves nothing where all sides
    are typed or two of them are the same text. The elements of two tuples are compared pair by
    pair, and what stands in the braces of an f-string may not be typed either, nor a number in a
    text that is put together in another way. A test proves nothing where a part of it is enough,
    as with ``or``. An assertion in a function, under a condition or in a loop over nothing proves
    nothing, because it may never run.
    """
    reading = _Reading({})
    for source in chapter:
        program = ast.parse(source)
        reading.names |= dict.fromkeys(bound(program), True)
        for node in ast.walk(program):
            if isinstance(node, ast.Import | ast.ImportFrom):
                reading.take_import(node)
    for source in parts:
        reading.other_names.clear()  # between two parts the chapter may bind a name again
        reading.take(ast.parse(source).body)
    return list(dict.fromkeys(map(ast.unparse, reading.empty)))


def bound(program: ast.Module) -> set[str]:
    """The names that a program gives to something, but for those inside its functions."""
    found = _Bound()
    found.visit(program)
    return found.names


class _Bound(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.add(node.name)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.add(node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def visit_comprehension(self, node: ast.comprehension) -> None:
        pass  # its target is known inside the brackets alone

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.names.add(node.id)


class _Reading:
    """A walk through assertions that knows of each name whether it is of the code."""

    def __init__(self, names: Mapping[str, bool]) -> None:
        self.names = dict(names)
        self.empty: list[ast.expr] = []
        self.other_names: dict[str, ast.Name] = {}  # what a name is no more than another name of
        self._paths: dict[str, str] = {}  # of what was imported
        self._built: dict[str, Mapping[str, bool]] = {}  # of a name, the fields that were given
        self._certain = True  # whether this statement runs once, whatever happens

    # ------------------------------------------------------------ statements

    def take(self, body: Iterable[ast.stmt]) -> None:
        """Bind what statements bind, and collect what their assertions fail to prove."""
        for statement in body:
            self._take(statement)

    def _take(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.take_import(statement)
            case ast.Assert(test=test):
                if not self.of_code(test) or _may_hold_for_nothing(test):
                    self.empty.append(test)
                else:
                    self._compare(test)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.AugAssign(target=target, value=value):
                self._put_into(target, self.of_code(value))
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed)) as call):
                self._put_into(changed, any(map(self.of_code, _arguments(call))))
            case ast.For(target=target, iter=values, body=body, orelse=otherwise):
                self._bind(target, self.of_code(values))
                self._branch(body, body, otherwise)  # a turn sees what the one before it bound
                if _is_nothing(values):
                    self._refuse_assertions(statement)
            case ast.While(body=body, orelse=otherwise):
                self._branch(body, body, otherwise)
                self._refuse_assertions(statement)
            case ast.If(body=body, orelse=otherwise):
                self._branch(body, otherwise)
                self._refuse_assertions(statement)
            case ast.With(items=items, body=body):
                for item in items:
                    if item.optional_vars:
                        self._assign(item.optional_vars, item.context_expr)
                self.take(body)
            case ast.Try(body=body, handlers=handlers, orelse=otherwise, finalbody=at_last):
                self._branch(body)
                for handler in handlers:
                    if handler.name:  # what it says is of the code that raised it
                        self.names[handler.name] = any(map(self._mentions, body))
                    self._branch(handler.body)
                self._branch(otherwise, at_last)
            case ast.FunctionDef():
                self._define(statement)
            case _:
                self._refuse_assertions(statement)

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Bind the names of an import."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                name, path = alias.asname or alias.name.partition(".")[0], alias.name
            else:
                name, path = alias.asname or alias.name, f"{node.module}.{alias.name}"
            self._paths[name] = name if isinstance(node, ast.Import) and not alias.asname else path
            parts = path.split(".")
            self.names[name] = not _PURE & {".".join(parts[:n]) for n in range(1, len(parts) + 1)}

    def _branch(self, *bodies: list[ast.stmt]) -> None:
        """What may not run, or run again: behind it a name may be what it was before it."""
        before, self._certain = self._certain, False
        for body in bodies:
            self.take(body)
        self._certain = before

    def _define(self, function: ast.FunctionDef) -> None:
        own = {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
        own |= bound(ast.Module(function.body, []))
        inside = self._within(own)
        self.names[function.name] = any(map(inside._mentions, function.body))
        self._refuse_assertions(function)

    def _refuse_assertions(self, statement: ast.stmt) -> None:
        self.empty += [each.test for each in ast.walk(statement) if isinstance(each, ast.Assert)]

    def _mentions(self, statement: ast.stmt) -> bool:
        """Whether a statement holds a name of the code, whatever it does with it."""
        names = (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        return any(self.names.get(name, False) for name in names)

    # ------------------------------------------------------------ what binds a name

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if _is_row(target) and _is_row(value) and len(target.elts) == len(value.elts):
            found = [(self.of_code(each), self._fields(each)) for each in value.elts]
            for each, (of_code, fields) in zip(target.elts, found, strict=True):
                self._bind(each, of_code, fields)
        else:
            self._bind(target, self.of_code(value), self._fields(value))
            if isinstance(target, ast.Name) and isinstance(value, ast.Name) and self._certain:
                first = self.other_names.get(value.id, value)
                if first.id != target.id:
                    self.other_names[target.id] = first

    def _bind(
        self, target: ast.expr, of_code: bool, fields: Mapping[str, bool] | None = None
    ) -> None:
        match target:
            case ast.Name(id=name) if self._certain:
                self.names[name] = of_code
                self._built.pop(name, None)
                self._forget_other_names(name)
                if fields is not None:
                    self._built[name] = fields
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for element in elements:
                    self._bind(element, of_code)
            case ast.Starred(value=value):
                self._bind(value, of_code)
            case _:
                self._put_into(target, of_code)

    def _put_into(self, target: ast.expr, of_code: bool) -> None:
        """What is put into a value stands there beside what it held."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            self.names[target.id] = self.names.get(target.id, False) or of_code
            self._forget_other_names(target.id)
            if of_code:
                self._built.pop(target.id, None)

    def _forget_other_names(self, bound_again: str) -> None:
        for name, first in [*self.other_names.items()]:
            if bound_again in (name, first.id):
                del self.other_names[name]

    def _text(self, node: ast.expr) -> str:
        """What an expression is written as, by the first of a value's names."""
        if isinstance(node, ast.Name):
            node = self.other_names.get(node.id, node)
        return ast.dump(node)

    # ------------------------------------------------------------ expressions

    def of_code(self, node: ast.expr) -> bool:
        """Whether the value of an expression holds something of the code."""
        match node:
            case ast.Name(id=name):
                return self.names.get(name, False)
            case ast.Call(func=ast.Attribute(value=ast.Name(), attr=name)) if name in HOLDERS:
                return any(map(self.of_code, _arguments(node)))
            case ast.Lambda(args=parameters, body=body):
                own = [arg.arg for arg in ast.walk(parameters) if isinstance(arg, ast.arg)]
                return self._within(own).of_code(body)
            case ast.Attribute(value=value, attr=field) if field in (self._fields(value) or ()):
                return (self._fields(value) or {})[field]
        inside = self._inside(node)
        return any(map(inside.of_code, _below(node)))

    def _fields(self, node: ast.expr) -> Mapping[str, bool] | None:
        """Whether each field that a dataclass was given is of the code; None for other values.

        What a class sets by default, and what it computes, is of the code and not among them.
        """
        match node:
            case ast.Name(id=name):
                return self._built.get(name)
            case ast.Call(func=function, args=values, keywords=keywords):
                given = {each.arg: self.of_code(each.value) for each in keywords if each.arg}
                path = self._path(function)
                if path == "dataclasses.replace" and values:
                    return {**(self._fields(values[0]) or {}), **given}
                if names := _field_names(path):
                    return {**dict(zip(names, map(self.of_code, values), strict=False)), **given}
        return None

    def _path(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return self._paths.get(name, "")
            case ast.Attribute(value=value, attr=name):
                return f"{self._path(value)}.{name}"
        return ""

    def _within(self, own: Iterable[str]) -> _Reading:
        """What is known where some names are others than outside, and typed."""
        inside = _Reading({**self.names, **dict.fromkeys(own, False)})
        inside._paths = self._paths
        inside._built = {name: fields for name, fields in self._built.items() if name not in own}
        return inside

    def _inside(self, node: ast.expr) -> _Reading:
        """What is known inside an expression: in a comprehension, the names that it binds too."""
        if not isinstance(node, _Comprehension):
            return self
        inside = self._within(())
        for generator in node.generators:
            inside._bind(generator.target, inside.of_code(generator.iter))
        return inside

    def _compare(self, node: ast.expr) -> None:
        """Collect the comparisons in an expression that prove nothing."""
        if self._proves_nothing(node):
            self.empty.append(node)
            return
        inside = self._inside(node)
        for each in _below(node):
            inside._compare(each)
        if inside is not self:
            self.empty += inside.empty

    def _proves_nothing(self, node: ast.expr) -> bool:
        match node:
            case ast.Compare(left=left, comparators=others, ops=operations):
                sides = [left, *others]
                return self._is_empty(sides) or any(
                    isinstance(operation, ast.In | ast.NotIn) and _is_among(one, other)
                    for (one, other), operation in zip(pairwise(sides), operations, strict=True)
                )
            case ast.IfExp(body=one, orelse=other):
                return not (self.of_code(one) and self.of_code(other))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return any(_is_nothing(generator.iter) for generator in node.generators)
        return False

    def _is_empty(self, sides: list[ast.expr]) -> bool:
        if any(self._text(one) == self._text(other) for one, other in pairwise(sides)):
            return True
        if not any(map(self.of_code, sides)):
            return True
        rows = [side.elts for side in sides if _is_row(side)]
        if len(rows) == len(sides) and len({len(row) for row in rows}) == 1:
            return any(self._is_empty(list(pair)) for pair in zip(*rows, strict=True))
        return any(map(self._writes_typed, sides))

    def _writes_typed(self, node: ast.expr) -> bool:
        """Whether a text that is put together holds a part that could as well stand in it."""
        match node:
            case ast.JoinedStr(values=values):
                parts = (each.value for each in values if isinstance(each, ast.FormattedValue))
                return any(map(self._holds_typed, parts))
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="format")):
                return any(map(self._holds_typed, _arguments(node)))
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[parts]):
                if isinstance(parts, _Comprehension) and not isinstance(parts, ast.DictComp):
                    return self._inside(parts)._is_typed_part(parts.elt)
                return _is_row(parts) and any(map(self._is_typed_part, parts.elts))
            case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod(), right=right):
                return self._holds_typed(right)
            case ast.BinOp(op=ast.Add()):
                summands = [*_summands(node)]
                return any(map(_is_text, summands)) and any(map(self._is_typed_part, summands))
            case ast.BoolOp(values=values):
                return any(map(self._holds_typed, values))
            case ast.Call(func=ast.Name(id=name)) if not self.names.get(name, False):
                return any(_is_row(each) and self._holds_typed(each) for each in _arguments(node))
            case ast.ListComp(elt=element) | ast.SetComp(elt=element):
                return self._inside(node)._writes_typed(element)
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                return any(map(self._writes_typed, elements))
        return False

    def _is_typed_part(self, node: ast.expr) -> bool:
        """Whether a part of a text is typed, but for words."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return any(map(str.isdigit, node.value))
        return self._holds_typed(node)

    def _holds_typed(self, node: ast.expr) -> bool:
        if _is_row(node):
            return any(map(self._holds_typed, node.elts))
        return not self.of_code(node) or self._writes_typed(node)


def _may_hold_for_nothing(test: ast.expr, wanted: bool = True) -> bool:
    """Whether a test is as wanted whatever it holds, or as soon as a part of it is."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _may_hold_for_nothing(operand, not wanted)
        case ast.BoolOp(op=operation, values=values):
            if isinstance(operation, ast.Or) == wanted:
                return True
            return any(_may_hold_for_nothing(each, wanted) for each in values)
        case ast.Call(func=ast.Name(id="all" | "any"), args=[ast.ListComp() | ast.GeneratorExp()]):
            (each,) = test.args
            return isinstance(each, ast.ListComp | ast.GeneratorExp) and _may_hold_for_nothing(
                each.elt, wanted
            )
        case ast.IfExp() | ast.Lambda() | ast.GeneratorExp() | ast.JoinedStr() | ast.Dict():
            return True
        case ast.Tuple() | ast.List() | ast.Set():
            return True
    return False


def _is_nothing(node: ast.expr) -> bool:
    """Whether an expression writes down a collection without elements."""
    nothing = {"[]", "()", "{}", "''", "range(0)", "list()", "tuple()", "set()", "dict()"}
    return ast.unparse(node) in nothing


def _is_among(one: ast.expr, row: ast.expr) -> bool:
    """Whether an element of a row that is written down is the same text."""
    elements = row.elts if isinstance(row, ast.Tuple | ast.List | ast.Set) else []
    return ast.dump(one) in map(ast.dump, elements)


def _summands(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _summands(node.left)
        yield from _summands(node.right)
    else:
        yield node


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()) | ast.Call(func=ast.Name(id="str")):
            return True
    return False


@cache
def _field_names(path: str) -> tuple[str, ...]:
    """The fields that a dataclass of the package is given, in their order; none for all else."""
    found = pydoc.locate(path) if path.startswith("ninlab.") else None
    if isinstance(found, type) and dataclasses.is_dataclass(found):
        return tuple(field.name for field in dataclasses.fields(found) if field.init)
    return ()


def _is_row(node: ast.expr) -> TypeGuard[ast.Tuple | ast.List]:
    """Whether an expression writes down elements one by one, none of them starred."""
    return isinstance(node, ast.Tuple | ast.List) and not any(
        isinstance(each, ast.Starred) for each in node.elts
    )


def _arguments(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args
    yield from (keyword.value for keyword in call.keywords)


def _below(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions right below one, those of a keyword or a comprehension among them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.keyword | ast.comprehension):
            yield from _below(child)
