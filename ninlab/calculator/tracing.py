"""How does a formula that is written once, in Python, reach a page that has no Python?

The formulas of ninlab are arithmetic of whole numbers, so they also run on numbers that
stand for something not known yet: the height of an image, the number of classes. Such a
`Traced` number is a polynomial over *atoms*, which are the unknowns and the floor quotients
of earlier polynomials. What a formula returns for it is a polynomial again, and a page
evaluates polynomials with additions and multiplications alone.

The way a program takes must not depend on an unknown, with one exception: checks that end
in a NinlabError. `Tracer.explore` runs the program once with every check passing, and once
more for every check, with that one failing; it keeps what was checked and the sentence of
the error, with the unknowns left open in it.

Known limits: addition, subtraction, multiplication, and floor division by a known number; a
program that asks more of an unknown raises TracingError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, prod
from typing import TypeVar, cast

from ninlab.errors import NinlabError

Monomial = tuple[int, ...]
"""Numbers of the atoms that are multiplied, in rising order; () stands for 1."""

Terms = tuple[tuple[Monomial, int], ...]
"""A polynomial as sorted (monomial, coefficient) pairs; no coefficient is 0."""

Result = TypeVar("Result")
_HOLE = re.compile("⟦(\\d+)⟧")


class TracingError(TypeError):
    """A program that does with an unknown what no list of polynomials expresses."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """An unknown, and the smallest value it can have."""

    name: str
    minimum: float


@dataclass(frozen=True, slots=True)
class Quotient:
    """The floor of a polynomial divided by a whole number above zero."""

    numerator: Traced
    divisor: int
    minimum: float


@dataclass(frozen=True, slots=True)
class Guard:
    """A check: when the value is below zero, the sentence says what is wrong.

    The sentence is in pieces: text, and the numbers that belong between.
    """

    value: Traced
    sentence: tuple[str | Traced, ...]


@dataclass
class Tracer:
    """The atoms of one program, and what its checks have made certain about them."""

    atoms: list[Symbol | Quotient] = field(default_factory=list)
    _quotients: dict[tuple[Terms, int], Traced] = field(default_factory=dict)
    at_least: dict[Terms, float] = field(default_factory=dict)  # of sums without their constant
    _checked: list[Traced] = field(default_factory=list)
    _failing: int | None = None  # the place in _checked of the check that is to fail
    _printed: list[Traced] = field(default_factory=list)

    def symbol(self, name: str, minimum: float = -inf) -> int:
        """A new unknown; a `Traced`, with the type of the number that it stands for."""
        return cast(int, self._atom(Symbol(name, minimum)))

    def explore(self, program: Callable[[], Result]) -> tuple[Result, tuple[Guard, ...]]:
        """What the program returns when all of its checks pass, and those checks in order.

        From then on they count as passed. Raises TracingError when a comparison of unknowns
        does not decide between going on and a NinlabError.
        """
        certain = dict(self.at_least)
        first = len(self._checked)
        result = program()
        passed = self._checked[first:]
        guards = []
        for place, value in enumerate(passed, start=first):
            del self._checked[first:]
            self.at_least = dict(certain)
            self._failing = place
            try:
                program()
            except NinlabError as error:
                guards.append(Guard(value, self._filled(str(error))))
            else:
                raise TracingError(f"{value!r} below zero ends in no error but in another way")
            finally:
                self._failing = None
        self._checked[first:] = passed
        self.at_least = certain
        for value in passed:
            self.assume_at_least(value, 0)
        return result, tuple(guards)

    def negative(self, value: Traced) -> bool:
        """Whether the value is below zero; where nothing tells, that is a check, and it passes."""
        if value.lowest >= 0:
            return False
        if (-value).lowest > 0:
            return True
        self._checked.append(value)
        if self._failing == len(self._checked) - 1:
            return True
        self.assume_at_least(value, 0)
        return False

    def quotient(self, numerator: Traced, divisor: int) -> Traced:
        """The floor of the numerator over the divisor."""
        if divisor < 1:
            raise TracingError(f"{numerator!r} is divided by {divisor}, which is not above zero")
        if all(coefficient % divisor == 0 for _, coefficient in numerator.terms):
            return self.polynomial({m: c // divisor for m, c in numerator.terms})
        # floor(n / d) is floor((n + d) / d) - 1. A window's places are one more than such a
        # quotient, so that counted like this a side of a map is one atom, and an area one product.
        raised = numerator + divisor
        if (raised.terms, divisor) not in self._quotients:
            minimum = raised.lowest // divisor
            self._quotients[raised.terms, divisor] = self._atom(Quotient(raised, divisor, minimum))
        return self._quotients[raised.terms, divisor] - 1

    def polynomial(self, coefficients: dict[Monomial, int]) -> Traced:
        """The sum of these multiples of monomials."""
        return Traced(self, tuple(sorted((m, c) for m, c in coefficients.items() if c)))

    def printed(self, value: Traced) -> str:
        """A mark that `explore` finds again in the text of an error."""
        self._printed.append(value)
        return f"⟦{len(self._printed) - 1}⟧"

    def _atom(self, atom: Symbol | Quotient) -> Traced:
        self.atoms.append(atom)
        return Traced(self, (((len(self.atoms) - 1,), 1),))

    def assume_at_least(self, value: Traced, minimum: float) -> None:
        """Keep that the value is never smaller, unless more is known."""
        if value.lowest < minimum:
            self.at_least[value.unknown_terms] = minimum - value.constant

    def _filled(self, text: str) -> tuple[str | Traced, ...]:
        pieces = _HOLE.split(text)
        texts, values = pieces[::2], [self._printed[int(number)] for number in pieces[1::2]]
        mixed = [piece for pair in zip(texts, values, strict=False) for piece in pair]
        return (*mixed, texts[-1])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Traced:
    """A whole number that is a polynomial over the atoms of its tracer."""

    tracer: Tracer
    terms: Terms

    # ------------------------------------------------------------ arithmetic

    def __add__(self, other: Traced | int) -> Traced:
        if isinstance(other, int):  # by far the most frequent
            constant = self.constant + other
            first = (((), constant),) if constant else ()
            return Traced(self.tracer, (*first, *self.unknown_terms))
        coefficients = dict(self.terms)
        for monomial, coefficient in other.terms:
            coefficients[monomial] = coefficients.get(monomial, 0) + coefficient
        return self.tracer.polynomial(coefficients)

    def __neg__(self) -> Traced:
        return Traced(self.tracer, tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Traced | int) -> Traced:
        return self + -other

    def __rsub__(self, other: int) -> Traced:
        return -self + other

    def __mul__(self, other: Traced | float) -> Traced:
        theirs = self._like(other)
        if len(self.terms) == len(theirs.terms) == 1:  # by far the most frequent
            ((monomial, coefficient),), ((factor, times),) = self.terms, theirs.terms
            if coefficient * times > 0:
                product = tuple(sorted(monomial + factor)) if monomial else factor
                return Traced(self.tracer, ((product, coefficient * times),))
        coefficients: dict[Monomial, int] = {}
        for monomial, coefficient in self.terms:
            for factor, times in theirs.terms:
                product = tuple(sorted(monomial + factor))
                coefficients[product] = coefficients.get(product, 0) + coefficient * times
        result = self.tracer.polynomial(coefficients)
        if any(coefficient < 0 for coefficient in coefficients.values()):
            # Its terms no longer tell that it is not negative; its factors do.
            low, their_low = self.lowest, theirs.lowest
            if low >= 0 and their_low >= 0:
                self.tracer.assume_at_least(result, low * their_low)
        return result

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Traced:
        return self if divisor == 1 else self.tracer.quotient(self, divisor)

    def __mod__(self, divisor: int) -> Traced | int:
        if divisor == 1:
            return 0
        rest = self - self // divisor * divisor
        return rest if rest.unknown_terms else rest.constant

    def __round__(self) -> Traced:
        return self

    # ------------------------------------------------------------ comparison

    def __lt__(self, other: Traced | int) -> bool:
        return self.tracer.negative(self - other)

    def __gt__(self, other: Traced | int) -> bool:
        return self.tracer.negative(other - self)

    def __le__(self, other: Traced | int) -> bool:
        return self.tracer.negative(self - other - 1)

    def __ge__(self, other: Traced | int) -> bool:
        return self.tracer.negative(other - self - 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Traced | int):
            return NotImplemented
        difference = self - other
        if not difference.terms:
            return True
        if difference.lowest > 0 or (-difference).lowest > 0:
            return False
        raise TracingError(f"whether {self!r} is {other!r} depends on an unknown")

    def __hash__(self) -> int:
        return hash(self.terms)

    def __bool__(self) -> bool:
        return self != 0

    # ------------------------------------------------------------ what is known

    @property
    def constant(self) -> int:
        """The term without an atom; it comes first."""
        return self.terms[0][1] if self.terms and not self.terms[0][0] else 0

    @property
    def unknown_terms(self) -> Terms:
        """All other terms."""
        return self.terms[1:] if self.terms and not self.terms[0][0] else self.terms

    @property
    def lowest(self) -> float:
        """The smallest value it can have, as far as anything tells."""
        unknown = self.unknown_terms
        if unknown in self.tracer.at_least:
            return self.tracer.at_least[unknown] + self.constant
        lowest: float = self.constant
        for monomial, coefficient in unknown:
            minima = [self.tracer.atoms[atom].minimum for atom in monomial]
            if coefficient < 0 or (len(minima) > 1 and min(minima) < 0):
                return -inf
            lowest += coefficient * prod(minima)
        return lowest

    def _like(self, other: Traced | float) -> Traced:
        if isinstance(other, Traced):
            return other
        if other != int(other):
            raise TracingError(f"{self!r} meets {other}, which is no whole number")
        return Traced(self.tracer, (((), int(other)),) if other else ())

    # ------------------------------------------------------------ text

    def __str__(self) -> str:
        return self.tracer.printed(self)

    def __repr__(self) -> str:
        return " + ".join(
            "*".join((str(coefficient), *(f"x{atom}" for atom in monomial)))
            for monomial, coefficient in self.terms
        )
