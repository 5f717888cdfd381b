"""A row of a table as one value of a numba kernel, held in vector registers.

Left to itself the compiler keeps the sum of a row's loop in memory, and takes registers half as
wide as the machine's. What is summed here is summed in one fixed order, whatever the machine.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Numbers in the widest register."""

FLOAT = ir.FloatType()


class Row(types.Type):
    """The type of a row of `dim` float32 numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__(name=f"Row({dim})")
        whole, rest = divmod(dim, LANES)
        self.dim = dim
        self.widths = [LANES] * whole + [width for width in (8, 4, 2, 1) if rest & width]
        """Of the vectors that a row is made of."""


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row) -> None:
        parts = ir.LiteralStructType([ir.VectorType(FLOAT, width) for width in row.widths])
        super().__init__(manager, row, parts)  # type: ignore[no-untyped-call]


def _intrinsic(typed: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(prefer_literal=True)(typed))


@_intrinsic
def load(context: Any, table: Any, i: Any, dim: Any) -> Any:
    """Return row i of `table` [n, dim], C-contiguous float32; `dim` is a constant."""
    _check(table)
    row = Row(dim.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = ir.Constant(context.get_value_type(row), ir.Undefined)
        for k, place in enumerate(_places(context, builder, table, row, *args[:2])):
            part = builder.load(place, align=4, typ=ir.VectorType(FLOAT, row.widths[k]))
            value = builder.insert_value(value, part, k)
        return value

    return row(table, types.uint64, dim), generate


@_intrinsic
def store(context: Any, table: Any, i: Any, row: Any) -> Any:
    """Write `row` into row i of `table` [n, dim], C-contiguous float32."""
    _check(table)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for k, place in enumerate(_places(context, builder, table, row, *args[:2])):
            builder.store(builder.extract_value(args[2], k), place, align=4)
        return context.get_dummy_value()

    return types.void(table, types.uint64, row), generate


@_intrinsic
def zeros(context: Any, dim: Any) -> Any:
    """Return a row of `dim` zeros; `dim` is a constant."""
    row = Row(dim.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(row), None)

    return row(dim), generate


@_intrinsic
def add_scaled(context: Any, total: Any, weight: Any, row: Any) -> Any:
    """Return ``total + weight * row``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, weight, rows = args
        for k, width in enumerate(row.widths):
            part = ir.VectorType(FLOAT, width)
            add = _llvm(builder, f"llvm.fmuladd.v{width}f32", part, (part, part, part))
            parts = (builder.extract_value(value, k) for value in (rows, total))
            new = builder.call(add, (_spread(builder, weight, width), *parts))
            total = builder.insert_value(total, new, k)
        return total

    return row(row, types.float32, row), generate


@_intrinsic
def scaled(context: Any, row: Any, weight: Any) -> Any:
    """Return ``weight * row``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, weight = args
        for k, width in enumerate(row.widths):
            part = builder.fmul(_spread(builder, weight, width), builder.extract_value(value, k))
            value = builder.insert_value(value, part, k)
        return value

    return row(row, types.float32), generate


@_intrinsic
def dot(context: Any, a: Any, b: Any) -> Any:
    """Return the inner product of two rows: lane by lane in order, then half upon half."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        totals: dict[int, Any] = {}  # of the parts of each width
        for k, width in enumerate(a.widths):
            part = ir.VectorType(FLOAT, width)
            add = _llvm(builder, f"llvm.fmuladd.v{width}f32", part, (part, part, part))
            total = totals.get(width, ir.Constant(part, None))
            parts = (builder.extract_value(row, k) for row in args)
            totals[width] = builder.call(add, (*parts, total))
        value = ir.Constant(FLOAT, -0.0)
        for width, total in totals.items():
            part = ir.VectorType(FLOAT, width)
            reduce = _llvm(builder, f"llvm.vector.reduce.fadd.v{width}f32", FLOAT, (FLOAT, part))
            value = builder.call(reduce, (value, total), fastmath=("reassoc",))
        return value

    return types.float32(a, b), generate


def _check(table: Any) -> None:
    if not (isinstance(table, types.Array) and table.ndim == 2 and table.layout == "C"):
        raise TypingError(f"rows are those of a C-contiguous [n, d] table, not of {table}")


def _places(context: Any, builder: Any, table: Any, row: Row, array: Any, i: Any) -> Iterator[Any]:
    """Yield the addresses of the parts of row i."""
    data = context.make_array(table)(context, builder, array).data
    first = builder.mul(i, ir.Constant(i.type, row.dim))
    for width in row.widths:
        place = builder.gep(data, [first])
        yield builder.bitcast(place, ir.VectorType(FLOAT, width).as_pointer())
        first = builder.add(first, ir.Constant(i.type, width))


def _spread(builder: Any, number: Any, width: int) -> Any:
    """Return a vector with `number` in every lane."""
    vector, integer = ir.VectorType(FLOAT, width), ir.IntType(32)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(integer, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(integer, width), None))


def _llvm(builder: Any, name: str, returned: Any, taken: tuple[Any, ...]) -> Any:
    return get_or_insert_function(builder.module, ir.FunctionType(returned, taken), name)  # type: ignore[no-untyped-call]
