"""A store under what happens to it: several processes, kills, damage."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from smolvla_core.cache.store import BLOCK, DATA, META, WRITTEN, create, open_store

ROWS, SHAPE = 64, (3, 5)


class Unlimited:
    closed = False

    def take(self, count):
        return True

    def close(self):
        raise AssertionError


def value(rows):
    """What a row's value is: numbers that say which row it is."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, None] + torch.arange(15).view(SHAPE) / 100


def opened(folder, dtype=torch.float32):
    create(folder, ROWS, SHAPE, dtype, {"kind": "test"})
    return open_store(folder, ROWS, SHAPE, dtype, Unlimited())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def never(rows):
    raise AssertionError(f"computed {rows} again")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_values_come_back_as_they_are_whatever_the_order(folder, dtype):
    rows = np.array([7, 3, 7, 60, 0])
    expected = value(rows).to(dtype)
    store = opened(folder, dtype)
    for at_once in (2, 1):
        found = store.gather(rows, lambda rows: value(rows).to(dtype), at_once)
        assert found.dtype == dtype
        assert torch.equal(found, expected)
    del store
    again = opened(folder, dtype)
    assert again.count == 4
    assert torch.equal(again.gather(rows, never, 1), expected)


def test_it_takes_the_disk_that_was_written(folder):
    create(folder, 10**6, (1024,), torch.float32, {})
    store = open_store(folder, 10**6, (1024,), torch.float32, Unlimited())
    store.fill(np.array([10, 999_999]), lambda rows: torch.zeros(len(rows), 1024), 1)
    data = (folder / DATA).stat()
    assert data.st_size == 4096 * 10**6
    assert data.st_blocks * 512 <= 4 * BLOCK


def fill_slowly(folder, computed, ready):
    store = open_store(folder, ROWS, SHAPE, torch.float32, Unlimited())

    def compute(rows):
        time.sleep(0.02)
        with computed.get_lock():
            for row in rows:
                computed[row] += 1
        return value(rows)

    ready.wait(timeout=300)  # a process that died must not leave the other waiting
    found = store.gather(np.arange(ROWS), compute, 1)
    assert torch.equal(found, value(np.arange(ROWS)))


def test_processes_share_the_work_out(folder):
    context = multiprocessing.get_context("spawn")
    create(folder, ROWS, SHAPE, torch.float32, {"kind": "test"})  # one process makes a store, any number open it
    computed, ready = context.Array("i", ROWS), context.Barrier(2)
    processes = [context.Process(target=fill_slowly, args=(folder, computed, ready)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(computed) == [1] * ROWS


def hang_with_claims(folder, pipe):
    store = opened(folder)
    store.fill(np.arange(4), value, 4)

    def compute(rows):
        if 9 in rows:  # rows 6 and 7 are written, but not yet declared so
            pipe.send("claimed")
            time.sleep(600)
        return value(rows)

    store.fill(np.arange(6, 10), compute, 2)


def test_what_a_killed_process_had_begun_is_done_by_who_waits_for_it(folder):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hang_with_claims, args=(folder, there))
    process.start()
    assert here.recv() == "claimed"
    store = opened(folder)
    assert store.count == 4
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    computed = []

    def compute(rows):
        computed.extend(rows)
        return value(rows)

    found = store.gather(np.arange(10), compute, 1)
    assert computed == [4, 5, 6, 7, 8, 9]
    assert torch.equal(found, value(np.arange(10)))


def test_a_failed_computation_leaves_nothing_behind(folder):
    store = opened(folder)

    def compute(rows):
        if 3 in rows:
            raise RuntimeError("no such picture")
        return value(rows)

    with pytest.raises(RuntimeError, match="no such picture"):
        store.fill(np.arange(5), compute, 2)
    assert store.count == 0
    assert torch.equal(store.gather(np.arange(5), value, 2), value(np.arange(5)))
    assert store.count == 5


@pytest.mark.parametrize("damage", ["cut short", "of another kind", "no description", "half a folder"])
def test_a_damaged_store_is_begun_anew(folder, damage):
    opened(folder).fill(np.arange(5), value, 5)
    if damage == "cut short":
        os.truncate(folder / DATA, 100)
    elif damage == "of another kind":
        (folder / META).write_text((folder / META).read_text().replace("float32", "float16"))
    elif damage == "no description":
        (folder / META).write_text("{")
    else:
        (folder / WRITTEN).unlink()
    store = opened(folder)
    assert store.count == 0
    assert torch.equal(store.gather(np.arange(5), value, 1), value(np.arange(5)))
