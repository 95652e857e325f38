"""The store's files: complete or not there, whatever happens to the disk and to other writers."""

import errno
import os
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from store.conftest import FACTS, KEY, same

from cacovid.store import Counters, DiskStore, Entry
from cacovid.store import part as part_module

KEYS = frozenset({"keys"})
PLENTY = 2**30


def store_of(folder: Path, limit: int = PLENTY) -> DiskStore:
    return DiskStore(folder, limit, Counters())


def keys_of(folder: Path) -> set[str]:
    return {path.name.split(".")[0] for path in folder.rglob("*.safetensors")}


def test_what_was_put_comes_back_in_another_process(tmp_path: Path, entry: Entry) -> None:
    store_of(tmp_path).put(KEY, entry)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        f"ab/{KEY}.features.safetensors",
        f"ab/{KEY}.keys.safetensors",
    ]
    other = store_of(tmp_path)
    assert same(other.get(KEY, KEYS), entry, "features", "keys")
    assert same(other.get(KEY, frozenset()), entry, "features")
    assert other.get(KEY, frozenset({"patches"})) is None and other.get("cd" + KEY[2:], frozenset()) is None


def test_every_damaged_byte_is_found(tmp_path: Path, entry: Entry) -> None:
    store_of(tmp_path).put(KEY, entry)
    path = tmp_path / "ab" / f"{KEY}.features.safetensors"
    good = path.read_bytes()
    harmless = 0
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        store = store_of(tmp_path)
        found = store.get(KEY, frozenset())
        if found is None:
            assert store.counters.dropped == 1 and not path.exists(), at
        else:  # a byte of the header that says nothing
            harmless += 1
            assert same(found, entry, "features"), at
    assert harmless < 8
    for length in (0, 5, 100, len(good) - 1):
        path.write_bytes(good[:length])
        assert store_of(tmp_path).get(KEY, frozenset()) is None and not path.exists(), length


def test_an_entry_of_another_key_is_damage(tmp_path: Path, entry: Entry) -> None:
    store = store_of(tmp_path)
    store.put(KEY, entry)
    other = "ab" + "1" * 62
    (tmp_path / "ab" / f"{KEY}.features.safetensors").rename(tmp_path / "ab" / f"{other}.features.safetensors")
    assert store.get(other, frozenset()) is None and store.counters.dropped == 1


def test_damage_is_said_once_and_rebuilt(tmp_path: Path, entry: Entry, said: list[str]) -> None:
    store = store_of(tmp_path)
    path = tmp_path / "ab" / f"{KEY}.keys.safetensors"
    for _ in range(2):
        store.put(KEY, entry)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 255]))
        assert store.get(KEY, KEYS) is None
    assert len(said) == 1 and "keys.safetensors is damaged (its checksum is" in said[0]
    assert store.counters.dropped == 2
    store.put(KEY, entry)
    assert same(store.get(KEY, KEYS), entry, "features", "keys")


def test_a_part_is_checked_once_a_process(tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    store_of(tmp_path).put(KEY, entry)
    checked, real = [], part_module.checksum
    monkeypatch.setattr(part_module, "checksum", lambda *a: checked.append(a[1]) or real(*a))
    store = store_of(tmp_path)
    for _ in range(3):
        store.get(KEY, KEYS)
    assert sorted(checked) == ["features", "keys"]


def test_parts_are_added_and_not_written_again(tmp_path: Path, entry: Entry) -> None:
    store = store_of(tmp_path)
    store.put(KEY, Entry(FACTS, {"features": entry.parts["features"]}))
    (path,) = tmp_path.rglob("*.safetensors")
    inode = path.stat().st_ino
    store.put(KEY, entry)
    assert path.stat().st_ino == inode
    assert same(store.get(KEY, KEYS), entry, "features", "keys")


def age(folder: Path, seconds: dict[str, float]) -> None:
    """Make the parts of these keys `seconds` old."""
    for path in folder.rglob("*.safetensors"):
        key = path.name.split(".")[0]
        if key in seconds:
            os.utime(path, (time.time() - seconds[key],) * 2)


def test_the_least_recently_used_go_first(tmp_path: Path, entry: Entry) -> None:
    one = Entry(FACTS, {"features": entry.parts["features"]})
    a, b, c, d, e = (letter * 64 for letter in "abcde")
    store_of(tmp_path).put(a, one)
    size = next(tmp_path.rglob("*.safetensors")).stat().st_size
    store = store_of(tmp_path, int(3.5 * size))
    store.put(b, one)
    store.put(c, one)
    age(tmp_path, {a: 300, b: 200, c: 100})
    assert store.get(a, frozenset()), "used now"
    store.put(d, one)
    assert keys_of(tmp_path) == {a, c, d} and store.counters.evicted == 1
    store.put(e, one)
    assert keys_of(tmp_path) == {a, d, e} and store.counters.evicted == 2
    store.put(b, one)
    assert keys_of(tmp_path) == {a, b, d, e}, "what was used in the last minute may be mapped by another process"
    age(tmp_path, {a: 300, b: 100, d: 200, e: 61})
    store.put(c, one)
    assert keys_of(tmp_path) == {b, c, e}


def test_a_large_store_is_not_looked_through_at_every_write(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looks, real = store_of(tmp_path), [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or real(path))
    for number in range(20):
        store.put(f"{number:064x}", entry)
    assert looks.count(tmp_path) == 1


def test_what_a_dead_writer_left_goes(tmp_path: Path, entry: Entry) -> None:
    (tmp_path / "ab").mkdir()
    dead, alive = tmp_path / "ab" / "host-1-0.part", tmp_path / "ab" / "host-2-0.part"
    for path in (dead, alive):
        path.write_bytes(b"half")
    os.utime(dead, (time.time() - 4000,) * 2)
    store_of(tmp_path).put(KEY, entry)
    assert not dead.exists() and alive.exists()


def test_a_full_disk_is_said_once_and_leaves_no_half_part(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    store = store_of(tmp_path)
    store.put(KEY, entry)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for key in ("c" * 64, "d" * 64):
        store.put(key, entry)
        assert store.get(key, frozenset()) is None
    assert len(said) == 1 and "the disk is full; no more encoded videos are stored" in said[0]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    assert same(store.get(KEY, KEYS), entry, "features", "keys"), "what is there still serves"


def test_a_folder_that_cannot_be_written(tmp_path: Path, entry: Entry, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    store = store_of(tmp_path / "file" / "store")
    assert store.get(KEY, frozenset()) is None
    store.put(KEY, entry)
    store.put(KEY, entry)
    assert store.get(KEY, frozenset()) is None
    assert len(said) == 1 and "writing failed: Not a directory" in said[0] and "choose another store_dir" in said[0]


def test_a_part_that_is_evicted_while_it_is_read_is_a_miss(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = store_of(tmp_path), torch.UntypedStorage.from_file
    store.put(KEY, entry)

    def evicted(path: str, *args: Any, **rest: Any) -> Any:
        Path(path).unlink()
        return real(path, *args, **rest)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", evicted)
    assert store.get(KEY, frozenset()) is None
    assert store.counters.dropped == 0
    monkeypatch.undo()
    store.put(KEY, entry)
    assert same(store.get(KEY, frozenset()), entry, "features")


def write_and_read(folder: Path, limit: int, seed: int, out: Any) -> None:
    """Put and get the same few entries in an order of its own; what went wrong is sent back."""
    store, wrong = store_of(folder, limit), 0
    generator = torch.Generator().manual_seed(seed)
    for number in torch.randint(6, (60,), generator=generator).tolist():
        made = Entry(FACTS, {"features": torch.full((3, 4, 50), float(number))})
        found = store.get(f"{number:02x}" + "0" * 62, frozenset())
        wrong += found is not None and not same(found, made, "features")
        if found is None:
            store.put(f"{number:02x}" + "0" * 62, made)
    out.put((wrong, store.counters.dropped))


def test_four_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of about three entries, and nothing in use: parts are written, read, and evicted all the time."""
    monkeypatch.setattr("cacovid.store.disk.IN_USE", 0.0)
    context = get_context("fork")
    out = context.Queue()
    workers = [context.Process(target=write_and_read, args=(tmp_path, 9000, seed, out)) for seed in range(4)]
    for worker in workers:
        worker.start()
    results = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [(0, 0)] * 4
    assert not list(tmp_path.rglob("*.part"))
