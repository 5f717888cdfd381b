"""A row of a table as one value of a numba kernel, held in vector registers.

Left to itself the compiler keeps the sum of a row's loop in memory, and takes registers half as
wide as the machine's. What is summed here is summed in one fixed order, whatever the machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Numbers in the widest register, and in a cache line."""
TO_L1, TO_L2 = 3, 2
"""How near `prefetch` brings a cache line: many more may be on their way to L2 than to L1."""

FLOAT, INTEGER = ir.FloatType(), ir.IntType(32)


def _vector(width: int) -> Any:
    return ir.VectorType(FLOAT, width)


class Row(types.Type):
    """The type of a row of `dim` float32 numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__(name=f"Row({dim})")
        whole, rest = divmod(dim, LANES)
        self.dim = dim
        self.widths = [LANES] * whole + [width for width in (8, 4, 2, 1) if rest & width]
        """Of the vectors that a row is made of."""
        self.struct = ir.LiteralStructType([_vector(width) for width in self.widths])


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row) -> None:
        super().__init__(manager, row, row.struct)  # type: ignore[no-untyped-call]


def _intrinsic(typed: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(prefer_literal=True)(typed))


@_intrinsic
def load(context: Any, table: Any, i: Any, dim: Any) -> Any:
    """Return row i of `table`, counted in rows of `dim` numbers; `dim` is a constant.

    `table` is C-contiguous float32, of any shape.
    """
    _check(table)
    row = Row(dim.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = _places(context, builder, table, row, *args[:2])
        parts = zip(places, row.widths, strict=True)
        return _joined(builder, row, (builder.load(at, align=4, typ=_vector(w)) for at, w in parts))

    return row(table, types.uint64, dim), generate


@_intrinsic
def store(context: Any, table: Any, i: Any, row: Any) -> Any:
    """Write `row` into row i of `table`, counted as by `load`."""
    _check(table)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = _places(context, builder, table, row, *args[:2])
        for place, part in zip(places, _parts(builder, row, args[2]), strict=True):
            builder.store(part, place, align=4)
        return context.get_dummy_value()

    return types.void(table, types.uint64, row), generate


@_intrinsic
def prefetch(context: Any, array: Any, i: Any, near: Any) -> Any:
    """Ask for the cache line of number i, counted through all rows, of a C-contiguous array.

    `near`, a constant, is `TO_L1` or `TO_L2`.
    """
    byte = ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        taken = (byte, INTEGER, INTEGER, INTEGER)
        ask = _llvm(builder, "llvm.prefetch.p0i8", ir.VoidType(), taken)
        reading, data_cache = (ir.Constant(INTEGER, k) for k in (0, 1))
        builder.call(ask, (place, reading, ir.Constant(INTEGER, near.literal_value), data_cache))
        return context.get_dummy_value()

    return types.void(array, types.int64, near), generate


@_intrinsic
def filled(context: Any, number: Any, dim: Any) -> Any:
    """Return a row of `dim` times `number`; `dim` is a constant."""
    row = Row(dim.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _joined(builder, row, (_spread(builder, args[0], width) for width in row.widths))

    return row(types.float32, dim), generate


def _elementwise(row: Row, part: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator of code that takes rows and numbers, part by part, to a row.

    ``part(builder, *vectors)`` makes one vector of those of the arguments.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        spread = (
            _parts(builder, row, value)
            if isinstance(kind, Row)
            else [_spread(builder, value, width) for width in row.widths]
            for kind, value in zip(signature.args, args, strict=True)
        )
        return _joined(
            builder, row, (part(builder, *vectors) for vectors in zip(*spread, strict=True))
        )

    return generate


@_intrinsic
def add_scaled(context: Any, total: Any, weight: Any, row: Any) -> Any:
    """Return ``total + weight * row``."""

    def part(builder: Any, total: Any, weight: Any, row: Any) -> Any:
        return _fma(builder, weight, row, total)

    return row(row, types.float32, row), _elementwise(row, part)


@_intrinsic
def times(context: Any, row: Any, other: Any) -> Any:
    """Return ``row * other``, number by number; `other` is a row or a number."""
    kind = other if isinstance(other, Row) else types.float32
    return row(row, kind), _elementwise(row, lambda builder, *both: builder.fmul(*both))


@_intrinsic
def minus(context: Any, row: Any, number: Any) -> Any:
    """Return ``row - number``."""
    return row(row, types.float32), _elementwise(row, lambda builder, *both: builder.fsub(*both))


@_intrinsic
def quotient(context: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``, number by number."""
    return a(a, b), _elementwise(a, lambda builder, *both: builder.fdiv(*both))


@_intrinsic
def root(context: Any, row: Any) -> Any:
    """Return the square roots."""
    return row(row), _elementwise(row, lambda builder, x: _of_one(builder, "sqrt", x))


@_intrinsic
def maximum(context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two numbers, number by number."""

    def part(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return a(a, b), _elementwise(a, part)


@_intrinsic
def exp(context: Any, row: Any) -> Any:
    """Return the exponentials of numbers of at most 0, to a unit in the last place.

    Below -87 they are 0. Range reduction by log 2 in two parts and a polynomial of degree 7
    (Moshier, Cephes, `expf`).
    """
    return row(row), _elementwise(row, _exp)


def _exp(builder: Any, x: Any) -> Any:
    width = x.type.count
    vector, integers = x.type, ir.VectorType(INTEGER, width)

    def number(value: float) -> Any:
        return ir.Constant(vector, [value] * width)

    low = builder.fcmp_ordered("<", x, number(-87))  # false for NaN, which goes through
    x = builder.select(low, number(-87), x)
    power = _of_one(builder, "rint", builder.fmul(x, number(1.44269504)))  # of 2
    rest = _fma(builder, power, number(-0.693359375), x)
    rest = _fma(builder, power, number(2.12194440e-4), rest)
    curve = number(1.9875691500e-4)
    for term in (
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ):
        curve = _fma(builder, curve, rest, number(term))
    curve = _fma(builder, builder.fmul(curve, rest), rest, rest)
    curve = builder.fadd(curve, number(1))
    exponent = builder.add(builder.fptosi(power, integers), ir.Constant(integers, [127] * width))
    scale = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * width)), vector)
    return builder.select(low, number(0), builder.fmul(curve, scale))


@_intrinsic
def dot(context: Any, a: Any, b: Any) -> Any:
    """Return the inner product of two rows: lane by lane in order, then half upon half."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        totals: dict[int, Any] = {}  # of the parts of each width
        for one, other in zip(*(_parts(builder, a, value) for value in args), strict=True):
            width = one.type.count
            if width in totals:
                totals[width] = _fma(builder, one, other, totals[width])
            elif a.widths.count(width) > 1:
                totals[width] = builder.fmul(one, other)
            else:  # a product alone might be fused with the sum over its lanes
                totals[width] = _fma(builder, one, other, ir.Constant(one.type, None))
        return reduce(builder.fadd, (_total(builder, total) for total in totals.values()))

    return types.float32(a, b), generate


def _check(table: Any) -> None:
    kind = isinstance(table, types.Array) and (table.dtype, table.layout)
    if kind != (types.float32, "C"):
        raise TypingError(f"rows are those of a C-contiguous table of float32, not of {table}")


def _places(context: Any, builder: Any, table: Any, row: Row, array: Any, i: Any) -> Iterator[Any]:
    """Yield the addresses of the parts of row i."""
    data = context.make_array(table)(context, builder, array).data
    first = builder.mul(i, ir.Constant(i.type, row.dim))
    for width in row.widths:
        yield builder.bitcast(builder.gep(data, [first]), _vector(width).as_pointer())
        first = builder.add(first, ir.Constant(i.type, width))


def _parts(builder: Any, row: Row, value: Any) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(len(row.widths))]


def _joined(builder: Any, row: Row, parts: Iterable[Any]) -> Any:
    value = ir.Constant(row.struct, ir.Undefined)
    for k, part in enumerate(parts):
        value = builder.insert_value(value, part, k)
    return value


def _total(builder: Any, vector: Any) -> Any:
    while (half := vector.type.count // 2) > 0:
        low, high = (_lanes(builder, vector, range(first, first + half)) for first in (0, half))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(INTEGER, 0))


def _spread(builder: Any, number: Any, width: int) -> Any:
    """Return a vector with `number` in every lane."""
    undefined = ir.Constant(_vector(width), ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(INTEGER, 0))
    return _lanes(builder, one, [0] * width)


def _lanes(builder: Any, vector: Any, which: Sequence[int]) -> Any:
    """Return the lanes of a vector by their numbers, in this order."""
    mask = ir.Constant(ir.VectorType(INTEGER, len(which)), list(which))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _of_one(builder: Any, name: str, x: Any) -> Any:
    return builder.call(_llvm(builder, f"llvm.{name}.v{x.type.count}f32", x.type, (x.type,)), (x,))


def _fma(builder: Any, a: Any, b: Any, total: Any) -> Any:
    name = f"llvm.fmuladd.v{total.type.count}f32"
    return builder.call(_llvm(builder, name, total.type, (total.type,) * 3), (a, b, total))


def _llvm(builder: Any, name: str, returned: Any, taken: tuple[Any, ...]) -> Any:
    return get_or_insert_function(builder.module, ir.FunctionType(returned, taken), name)  # type: ignore[no-untyped-call]
