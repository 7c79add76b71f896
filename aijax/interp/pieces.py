"""A program in pieces, cut where its values are put in, so that a run that is changed late begins late.

A run that differs from another from some tap on needs only what comes after: of the pieces before it gets what the
other run made. Where the first changed piece is known only as the program runs, each piece is passed over by a branch.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from aijax.interp.walk import Walk, names_in
from aijax.typing import Array


class Pieces:
    """The pieces of a program, each of which but the first begins with a tap that is wanted, or with what holds some.

    Attributes:
      first: number of the piece that each wanted name is made in.
    """

    def __init__(self, program: ClosedJaxpr, wanted: set[str]):
        self.program, self.wanted, self.first = program, wanted, {}
        jaxpr, walk = program.jaxpr, Walk(None, wanted)
        cuts = [number for number, equation in enumerate(jaxpr.eqns) if walk.stops(equation)]
        bounds = [0, *cuts, len(jaxpr.eqns)]
        self.pieces = []
        needed = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
        for start, end in reversed(list(itertools.pairwise(bounds))):
            equations = jaxpr.eqns[start:end]
            made = [var for equation in equations for var in equation.outvars]
            outvars = [var for var in made if var in needed]
            read = [var for equation in equations for var in equation.invars if not isinstance(var, Literal)]
            invars = [var for var in dict.fromkeys(read) if var not in set(made)]
            needed = (needed | set(invars)) - set(made)
            effects = {effect for equation in equations for effect in equation.effects}
            self.pieces.append(
                jaxpr.replace(constvars=[], invars=invars, outvars=outvars, eqns=equations, effects=effects)
            )
        self.pieces.reverse()
        for number, piece in enumerate(self.pieces):
            self.first |= {name: number for name in names_in(piece) if name in wanted}

    def run(self, inputs: Sequence[Array]) -> tuple[list[Array], list[list[Array]]]:
        """Returns the outputs of the program, and what each piece makes for those after it."""
        values, kept = self._inputs(inputs), []
        for piece in self.pieces:
            kept.append(jax.core.eval_jaxpr(piece, (), *(values[var] for var in piece.invars)))
            values.update(zip(piece.outvars, kept[-1], strict=True))
        return self._outputs(values), kept

    def run_changed(
        self, site: Callable, feeds: Mapping[str, Sequence[Array]], begin: Any, inputs: Sequence[Array], kept: Sequence
    ) -> list[Array]:
        """Returns the outputs of a run in which `site` puts in values, see `Walk`, from the piece `begin` on.

        Args:
          site, feeds: see `aijax.interp.walk.Walk`.
          begin: number of the first piece that differs: an int, or known as the program runs.
          inputs: of the program.
          kept: of `run` with these inputs.
        """
        values = self._inputs(inputs)
        for number, (piece, before) in enumerate(zip(self.pieces, kept, strict=True)):

            def changed(piece=piece):
                own = {name: feeds[name] for name in names_in(piece) if name in feeds}
                return Walk(site, self.wanted).run(piece, (), [values[var] for var in piece.invars], own, None)[0]

            if isinstance(begin, int):
                outputs = changed() if begin <= number else before
            else:
                outputs = jax.lax.cond(begin <= number, changed, lambda before=before: before)
            values.update(zip(piece.outvars, outputs, strict=True))
        return self._outputs(values)

    def _inputs(self, inputs):
        jaxpr = self.program.jaxpr
        known = zip([*jaxpr.constvars, *jaxpr.invars], [*self.program.consts, *inputs], strict=True)
        return dict(known)

    def _outputs(self, values):
        return [var.val if isinstance(var, Literal) else values[var] for var in self.program.jaxpr.outvars]
