import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bslbench.data import readers
from bslbench.data.readers import MAX_ID, READERS, read_bytes
from bslbench.errors import DataError

Rows = list[tuple[int, int]]
TEXT_READERS = ["user_lists", "pairs", "triples", "tsv"]


def slow_id(token: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", token) or int(token) > MAX_ID:
        raise DataError(token)
    return int(token)


def slow(reader: str, data: bytes) -> Rows:
    """Each reader again, one line and one token at a time."""
    if reader == "json_lists":
        return [(u, i) for u, items in enumerate(json.loads(data.decode())) for i in items]
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1").replace("\r\n", "\n").split("\n")
    if reader == "tsv" and re.match(r"[ \t\r\v\f]*[0-9]", lines.pop(0)):
        raise DataError("header")
    rows: Rows = []
    for line in lines:
        tokens = [token for token in re.split(r"[ \t]", line) if token]
        if not tokens:
            continue
        if reader == "user_lists":
            user, *items = map(slow_id, tokens)
            rows += [(user, item) for item in items]
        elif len(tokens) == 2 or (reader == "triples" and len(tokens) > 2):
            if reader == "triples" and len(tokens) == 2:
                raise DataError("columns")
            rows.append((slow_id(tokens[0]), slow_id(tokens[1])))
        else:
            raise DataError("columns")
    return rows


def fast(reader: str, data: bytes) -> Rows:
    users, items = READERS[reader](data, "file")
    assert users.dtype == items.dtype == np.int64
    return list(zip(users.tolist(), items.tolist(), strict=True))


def outcome(parse: Callable[[str, bytes], Rows], reader: str, data: bytes) -> Rows | None:
    try:
        return parse(reader, data)
    except DataError:
        return None


def random_text(reader: str, rng: np.random.Generator, end: str) -> bytes:
    lines = ["user_id\titem_id"] if reader == "tsv" else []
    blank = "\t" if reader != "user_lists" else " "
    for _ in range(200):
        ids = rng.integers(0, 10 ** rng.integers(1, 10), rng.integers(1, 30)).tolist()
        if reader != "user_lists":
            ids = [ids[0], ids[-1]] + ["3.2466e+05"] * (reader == "triples")
        lines.append(blank.join(map(str, ids)) + rng.choice(["", " ", "\t ", f"{end}{end} "]))
    return end.join(lines).encode()


@pytest.mark.parametrize("reader", TEXT_READERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [False, True])
def test_against_the_slow_parser(reader: str, end: str, mark: bytes, last: bool) -> None:
    data = mark + random_text(reader, np.random.default_rng(5), end) + end.encode() * last
    rows = fast(reader, data)
    assert len(rows) >= 200
    assert rows == slow(reader, data)


def test_json_against_the_slow_parser() -> None:
    rng = np.random.default_rng(6)
    lists = [rng.integers(0, 10**6, rng.integers(0, 9)).tolist() for _ in range(300)]
    for text in (json.dumps(lists), json.dumps(lists, indent=1).replace("\n", "\r\n")):
        assert fast("json_lists", text.encode()) == slow("json_lists", text.encode())
    assert fast("json_lists", b"\xef\xbb\xbf[[1]]") == [(0, 1)]


@pytest.mark.parametrize("reader", TEXT_READERS)
@pytest.mark.parametrize("data", [b"", b"\n", b" \t\r\n\r\n", b"\xef\xbb\xbf"])
def test_nothing_in_nothing_out(reader: str, data: bytes) -> None:
    assert fast(reader, data) == []


def test_a_user_without_items() -> None:
    assert fast("user_lists", b"0\n1 5\n2\n") == [(1, 5)]


# the pieces that files are made of, and some that they should not have
PIECES = b"0,7,12,2147483647,2147483648, , ,\t,\n,\n,\r\n,\r,-,.,e,x,\x00,\xff,\xef\xbb\xbf,1\t2\n"
BYTES = st.lists(st.sampled_from(PIECES.split(b",")), max_size=30).map(b"".join)


@settings(max_examples=300, deadline=None, database=None)
@given(data=BYTES | st.binary(max_size=20), reader=st.sampled_from(TEXT_READERS))
def test_any_bytes_are_parsed_right_or_refused(data: bytes, reader: str) -> None:
    assert outcome(fast, reader, data) == outcome(slow, reader, data)


@settings(max_examples=300, deadline=None, database=None)
@given(text=st.text('[], 0123456789-.e"tru', max_size=25) | st.text(max_size=5))
def test_any_json_is_parsed_or_refused(text: str) -> None:
    rows = outcome(fast, "json_lists", text.encode("utf-8", "surrogatepass"))
    assert rows is None or rows == slow("json_lists", text.encode())


@pytest.mark.parametrize(
    ("reader", "data", "message"),
    [
        ("user_lists", b"0 1\n1 2\n2 x3\n", "file, line 3: 'x3' is not a number"),
        ("user_lists", b"0 1\r\n\r\n1 -2\r\n", "file, line 3: id -2 is negative"),
        ("user_lists", b"\xef\xbb\xbf0 1\n\n\n1 2.5", "file, line 4: id 2.5 is not a whole number"),
        ("user_lists", b"0 1\n1 1e5\n", "file, line 2: id 1e5 is not a whole number"),
        (
            "user_lists",
            b"0 1\n1 2147483648",
            "file, line 2: id 2147483648 is larger than 2147483647",
        ),
        ("user_lists", b"0 " + b"9" * 99, "file, line 1: id 999999999999999999999... is larger"),
        ("user_lists", b"0 1\n1 +2\n", "file, line 2: id +2 is not"),
        ("user_lists", b"0 1\r1 2\n", "file, line 1: '1\\r1' is not a number"),
        ("user_lists", b"0 1\n0,2\n", "file, line 2: '0,2' is not a number"),
        ("user_lists", b"0 1\n1 \xff\n", "file, line 2: "),
        ("user_lists", b"x 1\n", "file, line 1: 'x'"),
        ("pairs", b"0\t1\n1\t2\t3\n", "file, line 2: expected 2 columns, found 3"),
        ("pairs", b"0\t1\n\n1\n", "file, line 3: expected 2 columns, found 1"),
        ("pairs", b"0\t1\n1\t-1\n", "file, line 2: id -1 is negative"),
        ("triples", b"1\t2\t3\r\n1\t2\r\n", "file, line 2: expected 3 or more columns, found 2"),
        ("triples", b"1\t2\t3\r\n1.5\t2\t3\r\n", "file, line 2: id 1.5"),
        ("tsv", b"u\ti\n0\t1\n0\tx\n", "file, line 3: 'x' is not a number"),
        ("tsv", b"0\t1\n0\t2\n", "file, line 1: expected column names"),
        ("json_lists", b"[[1],\n[2],\n[3,-4]]", "file, line 3: list of user 2: id -4 is negative"),
        ("json_lists", b"[[1], [2.5]]", "file, line 1: list of user 1: id 2.5"),
        ("json_lists", b"[[1], [true]]", "file, line 1: list of user 1: 'true' is not a number"),
        ("json_lists", b'[[1], ["2"]]', "file, line 1: list of user 1: "),
        ("json_lists", b"[[1], [[2]]]", "file, line 1: list of user 1: "),
        ("json_lists", b"[[1],\n[2147483648]]", "file, line 2: list of user 1: id 2147483648 is"),
        ("json_lists", b"[[1],\n[2]", "file, line 2: not valid JSON"),
        ("json_lists", b"[1, 2]", "expected a list of lists"),
        ("json_lists", b'{"0": [1]}', "expected a list of lists"),
        ("json_lists", b"[" * 100_000, "not valid JSON"),
        ("json_lists", b"[[" + b"9" * 5000 + b"]]", "not valid JSON"),
        ("json_lists", b"\xff\xfe", "not valid JSON"),
        ("json_lists", b"", "file, line 1: not valid JSON"),
    ],
)
def test_errors_name_file_line_and_fault(reader: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        READERS[reader](data, "file")
    assert str(caught.value).startswith("file")


def zipped(path: Path, *members: tuple[str, bytes], link: str = "") -> Path:
    path = path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return path


def tarred(path: Path, *members: tuple[str, bytes], link: str = "", kind: str = "gz") -> Path:
    path = path / f"some.tar{'.gz' if kind else ''}"
    with tarfile.open(path, "w:gz" if kind else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_member_is_read_and_nothing_unpacked(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(tmp_path, ("folder/other", b"other"), ("folder/train.txt", b"0 1\n"))
    assert read_bytes(path, "folder/train.txt") == b"0 1\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match=r"no member 'folder/trian.txt'.*'folder/train\.txt'"):
        read_bytes(path, "folder/trian.txt")


def test_a_plain_tar_and_a_leading_dot(tmp_path: Path) -> None:
    path = tarred(tmp_path, ("./train.txt", b"0 1\n"), kind="")
    assert read_bytes(path, "train.txt") == b"0 1\n"


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("first", [True, False])
def test_members_outside_are_refused(
    tmp_path: Path, pack: Callable[..., Path], name: str, first: bool
) -> None:
    good, evil = ("train.txt", b"0 1\n"), (name, b"x")
    path = pack(tmp_path, *((evil, good) if first else (good, evil)))
    with pytest.raises(DataError, match=r"refused: member .* lies outside"):
        read_bytes(path, "train.txt")


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("link", ["train.txt", "another"])
def test_links_are_refused(tmp_path: Path, pack: Callable[..., Path], link: str) -> None:
    path = pack(tmp_path, ("good.txt", b"0 1\n"), link=link)
    with pytest.raises(DataError, match=f"refused: member '{link}' is a link"):
        read_bytes(path, "train.txt")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_large_members_are_refused(
    tmp_path: Path, pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path, ("train.txt", b"0" * 1001))
    monkeypatch.setattr(readers, "MAX_MEMBER", 1000)
    with pytest.raises(DataError, match="1,001 bytes"):
        read_bytes(path, "train.txt")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_damaged_archives(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(tmp_path, ("train.txt", np.random.default_rng(0).bytes(5000)))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_bytes(path, "train.txt")
        except DataError as error:
            assert str(error).startswith(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name, member in [("train.txt", ""), ("some.zip", "train.txt"), ("some.tar.gz", "x")]:
        with pytest.raises(DataError, match=f"{name}: No such file"):
            read_bytes(tmp_path / name, member)


def test_amazon_electronics_has_its_pairs(real_data: Path) -> None:
    """Its train file is not to be had everywhere: the other two are read by themselves."""
    for name, n_pairs, n_users, n_items in [
        ("valid.txt", 152_255, 126_928, 32_644),
        ("test.txt", 168_933, 136_945, 25_754),
    ]:
        users, items = readers.pairs(read_bytes(real_data / "amazon-electronics" / name), name)
        assert (len(users), len(np.unique(users)), len(np.unique(items))) == (
            n_pairs,
            n_users,
            n_items,
        )
        assert items.min() >= 192_403
        assert items.max() < 192_403 + 63_001
