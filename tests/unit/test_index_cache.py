"""What indexing learned is kept line by line, and a line that is damaged is not believed."""

import resource
from pathlib import Path

import pytest

from site_agent.data.index_cache import ImageFingerprint, read_looks, write_looks

LOOKS = {
    "a.png": ImageFingerprint(10, 20, "0" * 64, bytes(range(256)), ("flat", "black"), (40, 30)),
    "b,\n\u00fc.png": ImageFingerprint(1, 2, "f" * 64, b""),
}


def kept(folder: Path) -> Path:
    return next(folder.glob("index-*.looks"))


def test_looks_are_kept_by_key_for_their_owner_only(tmp_path: Path) -> None:
    write_looks(tmp_path, "this folder", LOOKS)
    assert read_looks(tmp_path, "this folder") == LOOKS
    assert read_looks(tmp_path, "another folder") == {}
    assert kept(tmp_path).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "0"}\n', b"[" * 100_000, b"null\n", b'{"version": "0", "looks": {}}'],
)
def test_a_damaged_or_older_file_is_ignored(tmp_path: Path, damaged: bytes) -> None:
    write_looks(tmp_path, "key", LOOKS)
    kept(tmp_path).write_bytes(damaged)
    assert read_looks(tmp_path, "key") == {}


@pytest.mark.parametrize(
    ("name", "of_another"), [("pillow", "pillow 0"), ("simplejpeg", "simplejpeg 0"), ('"4 ', '"2 ')]
)
def test_lines_of_another_version_or_decoder_are_ignored(tmp_path: Path, name: str, of_another: str) -> None:
    write_looks(tmp_path, "key", LOOKS)
    assert name in kept(tmp_path).read_text()
    kept(tmp_path).write_text(kept(tmp_path).read_text().replace(name, of_another))
    assert read_looks(tmp_path, "key") == {}


def test_a_damaged_line_is_passed_over_and_the_others_are_used(tmp_path: Path) -> None:
    write_looks(tmp_path, "key", LOOKS)
    whole = kept(tmp_path).read_bytes()
    for old, new in ((b"0" * 64, b"1" + b"0" * 63), (b"0" * 64, b"0"), (b" 20,", b" 21,"), (b"0001", b"zzzz")):
        kept(tmp_path).write_bytes(whole.replace(old, new, 1))
        assert read_looks(tmp_path, "key") == {"b,\n\u00fc.png": LOOKS["b,\n\u00fc.png"]}
    kept(tmp_path).write_bytes(whole[:-10])  # cut short
    assert read_looks(tmp_path, "key") == {"a.png": LOOKS["a.png"]}


def test_a_disk_that_takes_nothing_costs_only_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").touch()
    write_looks(tmp_path / "cache", "key", LOOKS)
    assert read_looks(tmp_path / "cache", "key") == {}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        write_looks(tmp_path / "full", "key", LOOKS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "full").iterdir()) == []  # nothing half-written stays
    printed = capsys.readouterr()
    assert "cache_not_kept" in printed.out + printed.err
    assert str(tmp_path) not in printed.out + printed.err
