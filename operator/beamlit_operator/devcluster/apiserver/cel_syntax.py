"""Reads a CEL expression into a tree, for what is said about a rule before it ever runs.

The evaluator has a parser of its own, which does not show its tree; what it accepts and this one
does not is simply not checked further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tree:
    """One node.

    ``kind`` is ``literal`` (``name`` its type), ``ident``, ``select``, ``index``, ``call`` (a
    function, or with ``method`` one of its first part), ``list``, ``map``, or ``operator``.
    ``place`` is where it is in the text: the operator, dot or bracket that makes it.
    """

    kind: str
    name: str
    parts: tuple[Tree, ...]
    place: int
    method: bool = False


class SyntaxProblemError(Exception):
    """Not an expression this parser knows."""


_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<double>(?:\d+\.\d+(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+))
    |(?P<uint>(?:0[xX][0-9a-fA-F]+|\d+)[uU])
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)
    |(?P<bytes>[bB][rR]?(?:\"\"\"(?:.|\n)*?\"\"\"|'''(?:.|\n)*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<string>[rR](?:"[^"\n]*"|'[^'\n]*')|\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<ident>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<symbol>==|!=|<=|>=|&&|\|\||\?\.|\[\?|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
_LEVELS: Final = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)


def parse(text: str) -> Tree:
    """The tree of ``text``.

    Raises:
        SyntaxProblemError: it cannot be read.
    """
    reader = _Reader(text)
    tree = reader.expression()
    if reader.ahead != "":
        raise SyntaxProblemError(f"unexpected {reader.ahead!r}")
    return tree


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise SyntaxProblemError(f"cannot read {text[place]!r}")
            if found.lastgroup != "space":
                self._tokens.append((found.lastgroup or "", found[0], place))
            place = found.end()
        self._tokens.append(("end", "", len(text)))
        self._at = 0

    @property
    def ahead(self) -> str:
        kind, text, _ = self._tokens[self._at]
        return text if kind in ("symbol", "ident", "end") else f"<{kind}>"

    @property
    def _place(self) -> int:
        return self._tokens[self._at][2]

    def _next(self) -> tuple[str, str, int]:
        found = self._tokens[self._at]
        self._at += 1
        if self._at >= len(self._tokens):
            raise SyntaxProblemError("it ends too early")
        return found

    def _expect(self, symbol: str) -> None:
        if self.ahead != symbol:
            raise SyntaxProblemError(f"expected {symbol!r}, found {self.ahead!r}")
        self._next()

    def expression(self) -> Tree:
        condition = self._binary(0)
        if self.ahead != "?":
            return condition
        place = self._next()[2]
        first = self._binary(0)
        self._expect(":")
        return Tree("operator", "_?_:_", (condition, first, self.expression()), place)

    def _binary(self, level: int) -> Tree:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self.ahead in _LEVELS[level]:
            _, symbol, place = self._next()
            name = "@in" if symbol == "in" else f"_{symbol}_"
            left = Tree("operator", name, (left, self._binary(level + 1)), place)
        return left

    def _unary(self) -> Tree:
        if self.ahead in ("!", "-"):
            _, symbol, place = self._next()
            return Tree("operator", f"{symbol}_", (self._unary(),), place)
        return self._member(self._primary())

    def _member(self, base: Tree) -> Tree:
        while True:
            if self.ahead in (".", "?."):
                optional = self.ahead == "?."
                place = self._next()[2]
                kind, name, _ = self._next()
                if kind != "ident":
                    raise SyntaxProblemError(f"{name!r} is no field")
                if self.ahead == "(":
                    at = self._next()[2]
                    base = Tree("call", name, (base, *self._list(")")), at, method=True)
                else:
                    base = Tree("index" if optional else "select", name, (base,), place)
            elif self.ahead in ("[", "[?"):
                place = self._next()[2]
                key = self.expression()
                self._expect("]")
                base = Tree("index", "", (base, key), place)
            else:
                return base

    def _list(self, end: str) -> tuple[Tree, ...]:
        found: list[Tree] = []
        while self.ahead != end:
            found.append(self.expression())
            if self.ahead != end:
                self._expect(",")
        self._next()
        return tuple(found)

    def _primary(self) -> Tree:
        if self.ahead == ".":
            self._next()
        kind, text, place = self._next()
        if kind in ("string", "bytes", "int", "uint", "double"):
            return Tree("literal", kind, (), place)
        if kind == "ident":
            if text in ("true", "false"):
                return Tree("literal", "bool", (), place)
            if text == "null":
                return Tree("literal", "null_type", (), place)
            if self.ahead == "(":
                at = self._next()[2]
                return Tree("call", text, self._list(")"), at)
            return Tree("ident", text, (), place)
        if text == "(":
            inner = self.expression()
            self._expect(")")
            return inner
        if text == "[":
            return Tree("list", "", self._list("]"), place)
        if text == "{":
            return self._map(place)
        raise SyntaxProblemError(f"unexpected {text!r}")

    def _map(self, place: int) -> Tree:
        parts: list[Tree] = []
        while self.ahead != "}":
            parts.append(self.expression())
            self._expect(":")
            parts.append(self.expression())
            if self.ahead != "}":
                self._expect(",")
        self._next()
        return Tree("map", "", tuple(parts), place)
