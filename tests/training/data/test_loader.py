import itertools
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib import UserError
from tests.helpers import PATIENCE
from tests.training.data.numbered import numbers, save_numbered
from training.data import loader
from training.data.archive import UnreadableError
from training.data.dataset import ImageDataset
from training.data.loader import InfiniteOrder, training_batches
from training.data.writer import dataset_writer, png_bytes


def take(order: InfiniteOrder, count: int) -> list[int]:
    return list(itertools.islice(order, count))


def test_every_epoch_is_another_permutation():
    indices = take(InfiniteOrder(50, seed=3), 150)
    epochs = [indices[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert indices != take(InfiniteOrder(50, seed=4), 150)


@pytest.mark.parametrize("start", [0, 7, 10, 33, 1000])
def test_order_continues_from_any_start(start):
    assert (
        take(InfiniteOrder(10, seed=1, start=start), 25)
        == take(InfiniteOrder(10, 1), start + 25)[start:]
    )


@pytest.mark.parametrize("size", [2, 10])
def test_ranks_share_the_order(size):
    together = take(InfiniteOrder(size, seed=1, start=5), 60)
    for rank in range(3):
        order = InfiniteOrder(size, seed=1, rank=rank, world_size=3, start=5)
        assert take(order, 20) == together[rank::3]


def test_batches_are_the_same_for_any_number_of_workers_and_any_resume(tmp_path):
    dataset = ImageDataset(save_numbered(tmp_path, 13))

    def batches(count: int, **options) -> list[int]:
        taken = list(itertools.islice(training_batches(dataset, 4, seed=2, **options), count))
        for batch in taken:
            assert all(map(torch.equal, batch.images, (dataset[int(i)] for i in batch.indices)))
        return numbers(batch.images for batch in taken)

    reference = batches(8)
    assert batches(8, workers=2) == reference
    assert batches(5, start=12, workers=1) == reference[12:]
    ranks = [batches(4, rank=rank, world_size=2) for rank in (0, 1)]
    assert [number for pair in zip(*ranks, strict=True) for number in pair] == reference
    assert batches(2, rank=1, world_size=2, start=16) == ranks[1][8:]


def test_batches_leave_the_random_state_alone(tmp_path):
    dataset = ImageDataset(save_numbered(tmp_path, 4))
    before = torch.get_rng_state()
    images, indices = next(training_batches(dataset, 3, seed=0))
    assert images.shape == (3, 3, 8, 8) and images.dtype == torch.uint8 and indices.shape == (3,)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_do_not_disturb_each_other_in_one_zip(tmp_path):
    rng = np.random.default_rng(0)
    with dataset_writer(tmp_path / "set.zip") as writer:
        for _ in range(40):  # large, so that reads overlap
            noise = rng.integers(0, 256, (256, 256, 3), np.uint8)
            writer.add_image(png_bytes(Image.fromarray(noise)))
    dataset = ImageDataset(tmp_path / "set.zip")  # has read an image: the zip is open

    def images(workers: int) -> torch.Tensor:
        batches = training_batches(dataset, 4, seed=0, workers=workers)
        return torch.cat([batch.images for batch in itertools.islice(batches, 30)])

    alone, shared = images(0), images(2)
    assert torch.equal(alone, shared)


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_image_is_named_in_one_line(tmp_path, workers):
    save_numbered(tmp_path, 4)
    whole = png_bytes(Image.effect_noise((64, 64), 90))
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    dataset = ImageDataset(tmp_path, resolution=8)
    with pytest.raises(UserError, match=r"half\.png .*dataset_tool\.py check") as error:
        list(itertools.islice(training_batches(dataset, 5, seed=0, workers=workers), 1))
    assert "\n" not in str(error.value)


class StuckDataset(ImageDataset):
    """Photographs on storage that stops to answer after some images."""

    answers = 6

    def __getitem__(self, index: int) -> torch.Tensor:
        self.answers -= 1
        if self.answers < 0:
            threading.Event().wait(PATIENCE)
        return super().__getitem__(index)


@pytest.fixture
def stuck(tmp_path, monkeypatch) -> StuckDataset:
    monkeypatch.setattr(loader, "POLL_SECONDS", 0.05)
    return StuckDataset(save_numbered(tmp_path, 4))


def test_waiting_ends_when_asked_to_stop(stuck):
    asked = threading.Event()
    batches = training_batches(stuck, 4, seed=0, workers=1, stop=asked.is_set)
    next(batches)
    asked.set()
    with pytest.raises(UnreadableError, match="stopped while waiting"):
        next(batches)  # not only after PATIENCE seconds, when the storage answers


def test_storage_that_does_not_answer_is_an_error(stuck, monkeypatch):
    monkeypatch.setattr(loader, "PATIENCE_SECONDS", 0.3)
    batches = training_batches(stuck, 4, seed=0, workers=2)
    with pytest.raises(UnreadableError, match=r"no photograph of .* came .*--workers 0"):
        list(batches)


def test_any_error_of_a_thread_reaches_the_one_who_waits(tmp_path, monkeypatch):
    def fail(self, index):
        raise TimeoutError("a file system's")

    monkeypatch.setattr(ImageDataset, "__getitem__", fail)
    batches = training_batches(ImageDataset(save_numbered(tmp_path, 4)), 4, seed=0, workers=2)
    with pytest.raises(TimeoutError, match="a file system's"):
        next(batches)


def test_threads_end_with_the_batches(tmp_path):
    before = {*threading.enumerate()}
    batches = training_batches(ImageDataset(save_numbered(tmp_path, 4)), 4, seed=0, workers=3)
    next(batches)
    threads = {*threading.enumerate()} - before
    assert len(threads) == 3
    batches.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_loading_needs_no_shared_memory(tmp_path):
    """Where workers were processes, batches lay in /dev/shm, of which containers have 64 MB."""
    batches = training_batches(ImageDataset(save_numbered(tmp_path, 4), 64), 8, seed=0, workers=2)
    assert not any(batch.images.is_shared() for batch in itertools.islice(batches, 4))
