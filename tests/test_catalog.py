import hashlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from bslbench import catalog
from bslbench.catalog import (
    FileSpec,
    Format,
    data_dir,
    get,
    load_catalog,
    missing_files,
    split_name,
    verify,
)
from bslbench.data.readers import READERS
from bslbench.errors import ConfigError, DataError

ENTRY = """
[mine]
reader = "pairs"
[mine.files.train]
name = "train.txt"
[mine.files.test]
name = "test.txt"
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str, name: str = "extra.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_packaged_entries(elsewhere: Path) -> None:
    known = load_catalog()
    assert set(known) == {
        "yelp2018",
        "gowalla",
        "movielens-1m",
        "amazon-electronics",
        "lastfm",
        "amazon2014-electronic",
        "synthetic",
    }
    for spec in known.values():
        assert spec.title and spec.licence and spec.split_seed == 0
        for file in spec.downloads:
            assert file.has_checksum and file.url.startswith("https://")
    assert known["synthetic"].downloads == []
    assert len(known["yelp2018"].downloads) == 1, "train and test come from one archive"


def test_real_files_are_those_of_the_catalog(real_data: Path) -> None:
    for spec in load_catalog().values():
        missing = missing_files(spec, real_data)
        for file in spec.downloads:
            if spec.path(file, real_data) not in missing:
                verify(spec.path(file, real_data), file)


def test_every_format_has_a_reader() -> None:
    assert set(get_args(Format)) == set(READERS)


def test_a_wheel_has_the_catalog_inside(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = elsewhere / "site-packages" / "bslbench"
    package.mkdir(parents=True)
    written(package, ENTRY, "datasets.toml")
    monkeypatch.setattr(catalog, "__file__", str(package / "catalog.py"))
    assert set(load_catalog()) == {"mine"}


def test_extended_by_the_working_directory_and_by_a_file(elsewhere: Path) -> None:
    written(elsewhere, ENTRY, "datasets.toml")
    assert load_catalog()["mine"].title == ""
    path = written(elsewhere, ENTRY.replace("[mine]", '[mine]\ntitle = "later"'))
    known = load_catalog(path)
    assert known["mine"].title == "later"
    assert "yelp2018" in known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine\n", "extra.toml: not valid TOML: .*line 1"),
        ("\n\nreader = \n", "line 3"),
        ("version = 3", r"version: expected tables \[version\]"),
        ("[mine]\nfiles = 3", "expected tables"),
        (ENTRY.replace("[mine]", "[mine]\nusers = 3"), "mine: unknown key 'users'.*n_users"),
        (ENTRY + 'sha265 = ""', r"mine\.files\.test: unknown key 'sha265'.*'sha256'"),
        (ENTRY + 'sha256 = "abc"', r"files\.test: sha256"),
        (ENTRY + 'url = "ftp://host/file"', r"files\.test: url"),
        (ENTRY.replace("test.txt", "../test.txt"), r"files\.test: name"),
        (ENTRY.replace("mine", "'a/b'"), "name"),
        (ENTRY.replace('"pairs"', '"pears"'), "reader"),
        (ENTRY.replace("files.test", "files.tests"), "tests"),
        (ENTRY.replace("files.test", "files.valid"), "files.train and files.test are needed"),
        (ENTRY.replace('"pairs"', '"synthetic"'), "synthetic dataset has no files"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(elsewhere: Path, text: str, message: str) -> None:
    path = written(elsewhere, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value).strip()


def test_a_catalog_that_is_not_there_or_not_text(elsewhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_catalog(elsewhere / "nowhere.toml")
    (elsewhere / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml"):
        load_catalog(elsewhere / "binary.toml")


def test_an_unknown_name_gets_a_suggestion() -> None:
    known = load_catalog()
    assert get(known, "lastfm") is known["lastfm"]
    with pytest.raises(ConfigError, match="did you mean 'yelp2018'"):
        get(known, "yelp18")


@pytest.mark.parametrize("name", ["a?", "a?b", "a?b=", "a?=1", "a?b=1&", "a?b=1&b=2"])
def test_modifiers_are_key_and_value(name: str) -> None:
    with pytest.raises(ConfigError, match="dataset 'a"):
        split_name(name)


def test_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_folder: Path) -> None:
    monkeypatch.delenv("BSLBENCH_DATA", raising=False)
    assert data_dir() == cache_folder / "data"
    monkeypatch.setenv("BSLBENCH_DATA", str(tmp_path / "environment"))
    assert data_dir() == tmp_path / "environment"
    assert data_dir(tmp_path / "option") == tmp_path / "option"


def test_missing_files(elsewhere: Path) -> None:
    spec = load_catalog(written(elsewhere, ENTRY))["mine"]
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "test.txt").touch()
    assert missing_files(spec, elsewhere) == [elsewhere / "mine" / "train.txt"]


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    sha256 = hashlib.sha256(b"hello\n").hexdigest()
    blob = "ce013625030ba8dba906f756967f9e9ca394464a"  # printf 'hello\n' | git hash-object --stdin
    verify(path, FileSpec(name="file", bytes=6, sha256=sha256, git_blob=blob))
    verify(path, FileSpec(name="file"))
    for wrong, message in [
        (FileSpec(name="file", bytes=7), "6 bytes, expected 7"),
        (FileSpec(name="file", sha256="0" * 64), f"sha256 is {sha256[:12]}.*expected 0000"),
        (FileSpec(name="file", sha256=sha256, git_blob="1" * 40), "git blob id is ce0136.*1111"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            verify(path, wrong)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(DataError, match="nowhere"):
        verify(tmp_path / "nowhere", FileSpec(name="file"))


def test_neither_catalog_nor_download_imports_numpy() -> None:
    program = "import sys, bslbench.download; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
