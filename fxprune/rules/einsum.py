"""``einsum``: equal letters are tied, letters that are not in the output are summed over."""

from fxprune.ir.units import Vector
from fxprune.rules.operands import BROADCAST, cost, free, is_weight
from fxprune.rules.registry import Operand, register_rule

DIAGONAL = "a letter is repeated: a diagonal is read"


def parse(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The labels of every operand and of the output; the dims of an ellipsis are labelled ``"...0"`` from the right.

    >>> parse("bij,bjk", [3, 3])
    ([['b', 'i', 'j'], ['b', 'j', 'k']], ['i', 'k'])
    >>> parse("...ij->...ji", [3])
    ([['...0', 'i', 'j']], ['...0', 'j', 'i'])
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_labels(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    dots = sorted({label for term in terms for label in term if label.startswith("...")}, reverse=True)
    if arrow:
        before, has_dots, after = right.partition("...")
        return terms, [*before, *(dots if has_dots else ()), *after]
    letters = [label for term in terms for label in term if not label.startswith("...")]
    return terms, dots + sorted(letter for letter in set(letters) if letters.count(letter) == 1)


def _labels(term: str, rank: int) -> list[str]:
    before, has_dots, after = term.partition("...")
    dots = rank - len(before) - len(after) if has_dots else 0
    return [*before, *(f"...{k}" for k in reversed(range(dots))), *after]


@register_rule("aten::einsum", mixes=True)
def einsum(op, equation, tensors, *, path=None):
    """Any contraction that letters can say."""
    terms, output = parse(equation, [len(x) for x in tensors])
    vectors: dict[str, Vector] = {}
    for x, labels in zip(tensors, terms, strict=True):
        _meet(op, x, labels, vectors)
    for x, labels in zip(tensors, terms, strict=True):
        for vector, label in zip(x.vectors, labels, strict=True):
            if len(vector) != len(vectors[label]):
                op.freeze(vector, BROADCAST)
        if is_weight(x) and len(tensors) > 1:
            _roles(op, x, labels, output, [other for other in terms if other is not labels])
    if len(tensors) > 1:
        cost(op, *vectors.values())
    return tuple(vectors[label] for label in output)


def _meet(op, x: Operand, labels: list[str], vectors: dict) -> None:
    """Tie one operand's dims with what carried the same labels before."""
    for vector, label in zip(x.vectors, labels, strict=True):
        known = vectors.get(label)
        if labels.count(label) > 1:
            op.freeze(vector, DIAGONAL)
        if known is None or (len(known) == 1 and len(vector) > 1):
            vectors[label] = vector
            if known is not None:
                op.freeze(known, BROADCAST)
        elif len(known) == len(vector):
            op.tie(known, vector)
            vectors[label] = known if free(known) or not free(vector) else vector


def _roles(op, weight: Operand, labels: list[str], output: list[str], others: list[list[str]]) -> None:
    """A weight's letters that only it and the output hold are produced; those that it sums with others, read."""
    for vector, label in zip(weight.vectors, labels, strict=True):
        elsewhere = any(label in other for other in others)
        if label in output and not elsewhere:
            op.produces(vector)
        elif label not in output and elsewhere:
            op.consumes(vector)
