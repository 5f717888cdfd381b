"""Values of columns: ids as text, numbers, moments; what is none of these is named by its place."""

from collections.abc import Callable
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from bslbench.errors import DataError

Place = Callable[[int], str]
"""Names the file and the place in it of a value of the column."""

ZONED, NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")

LONGEST = 512
"""Bytes of an id: an array of ids that numpy alone can read holds all as long as the longest."""


def texts(column: pa.Array, place: Place, what: str) -> pa.Array:
    """Return ids of any type as text, [n] string: whole numbers in digits, text as it is.

    16 bytes of fixed size are a UUID.

    Raises
    ------
    DataError
        For a type that names nothing, or naming the row of a value that is missing, longer than
        `LONGEST`, not UTF-8 or with a NUL, which numpy drops at the end of an id.
    """
    column = _plain(column)
    kind = column.type
    if pa.types.is_floating(kind):  # what a table of whole numbers becomes where some are missing
        values = pc.cast(column, pa.float64())
        _all(pc.and_(_whole(values), pc.less(pc.abs(values), 2.0**53)), column, place, what)
        column = pc.cast(values, pa.int64())
    elif pa.types.is_decimal(kind):  # what databases give whole numbers out as
        values = pc.cast(column, pa.decimal256(76, kind.scale))
        _all(_whole(values), column, place, what)
        column = pc.cast(values, pa.decimal256(76, 0))
    elif _is_text(kind):
        column = _decoded(column, place, what)
    elif not pa.types.is_integer(kind):
        raise DataError(f"{place(0)}: {_one(what)} cannot be a {kind}")
    column = pc.cast(column, pa.string())
    length = pc.fill_null(pc.binary_length(column), 0)
    _all(pc.greater(length, 0), column, place, what)
    _all(pc.less_equal(length, LONGEST), column, place, f"{what}: more than {LONGEST} bytes")
    _all(pc.invert(pc.match_substring(column, "\0")), column, place, f"{what}: it has a NUL")
    return column


def numbers(column: pa.Array, place: Place, what: str) -> pa.Array:
    """Return a column as finite numbers, [n] float64.

    Raises
    ------
    DataError
        For a type that is no number, or naming the row of a value that is none.
    """
    column = _plain(column)
    kind = column.type
    if _is_text(kind):
        column = _cast(column, pa.float64(), place, what)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{place(0)}: {_one(what)} cannot be a {kind}")
    values = pc.cast(column, pa.float64(), safe=False)
    _all(pc.fill_null(pc.is_finite(values), False), column, place, what)
    return values


def time_kind(column: pa.Array) -> pa.DataType:
    """Return how a column of moments is to be read: as numbers, as dates, or as dates with a zone.

    A column of text is judged by its first value that there is; what `times` then finds to be
    otherwise is an error, so that seconds and dates are never mixed.
    """
    column = _plain(column)
    if _is_text(column.type):
        for kind in (pa.float64(), ZONED, NAIVE):
            try:
                pc.cast(pc.cast(column.drop_null()[:1], pa.string()), kind)
            except pa.ArrowInvalid:
                continue
            return kind
        return NAIVE
    if pa.types.is_timestamp(column.type):
        return ZONED if column.type.tz else NAIVE
    return NAIVE if pa.types.is_date(column.type) else pa.float64()


def times(column: pa.Array, kind: pa.DataType, place: Place, what: str) -> pa.Array:
    """Return moments as numbers in their order, [n] float64: numbers as they are, dates in us.

    Parameters
    ----------
    kind
        From `time_kind`.

    Raises
    ------
    DataError
        As `numbers`.
    """
    column = _plain(column)
    if _is_text(column.type):
        column = _cast(column, kind, place, what)
    elif time_kind(column) != kind:
        raise DataError(f"{place(0)}: a {what} of {column.type} among others of {kind}")
    if pa.types.is_temporal(kind):
        column = pc.cast(pc.cast(column, kind, safe=False), pa.int64())
    return numbers(column, place, what)


def _plain(column: pa.Array) -> pa.Array:
    """Return values without what is only a way to store them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        return _uuids(column) if kind.byte_width == 16 else pc.cast(column, pa.binary())
    if pa.types.is_binary_view(kind):
        return pc.cast(column, pa.binary())
    return pc.cast(column, pa.string()) if pa.types.is_string_view(kind) else column


def _uuids(column: pa.Array) -> pa.Array:
    """Return 16 bytes each as a UUID is written; each is put into words once."""
    coded = column.dictionary_encode()
    written = [str(UUID(bytes=raw)) for raw in coded.dictionary.to_pylist()]
    return pa.array(written, pa.string()).take(coded.indices)


def _whole(values: pa.Array) -> pa.Array:
    """Tell which values have no fraction, [n] bool; what is missing is none of them."""
    return pc.fill_null(pc.equal(pc.floor(values), values), False)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _cast(column: pa.Array, kind: pa.DataType, place: Place, what: str) -> pa.Array:
    """Parse text; the first value that is not of the kind is named with its place."""
    text = _decoded(column, place, what)
    try:
        return pc.cast(text, kind)
    except pa.ArrowInvalid:
        for i in range(len(text)):
            try:
                pc.cast(text[i : i + 1], kind)
            except pa.ArrowInvalid:
                _blame(text, place, i, what)
        raise


def _decoded(column: pa.Array, place: Place, what: str) -> pa.Array:
    """Return text or bytes as text; Parquet may call text what is no UTF-8."""
    raw = pc.cast(column, pa.binary())
    try:
        return pc.cast(raw, pa.string())
    except pa.ArrowInvalid:
        for i, value in enumerate(raw.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                raise DataError(f"{place(i)}: {what} is not UTF-8") from None
        raise


def _all(good: pa.Array, column: pa.Array, place: Place, what: str) -> None:
    """Raise a `DataError` for the first value that is not good."""
    if len(good) and not pc.all(good).as_py():
        _blame(column, place, pc.index(good, False).as_py(), what)


def _blame(column: pa.Array, place: Place, i: int, what: str) -> None:
    value = column[i].as_py()
    if value is None or value in ("", b""):
        raise DataError(f"{place(i)}: no {what}")
    shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    shown = shown if len(shown) <= 24 else shown[:21] + "..."
    raise DataError(f"{place(i)}: {shown!r} is not {_one(what)}")


def _one(what: str) -> str:
    return f"an {what}" if what.startswith("item") else f"a {what}"
