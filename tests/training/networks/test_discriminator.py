"""The discriminator's own promises; its numbers are tested against the reference in test_parity."""

import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from tests.helpers import DUAL, PLAIN, small_discriminator
from torch_utils.images import resize


def pictures(resolution: int, count: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        count, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)
    )


def without_gradient(network: torch.nn.Module) -> set[str]:
    """Modules all of whose own parameters lack a gradient."""
    return {
        name
        for name, module in network.named_modules()
        if (own := list(module.parameters())) and all(p.grad is None for p in own)
    }


def test_dual_discrimination_looks_at_both_images():
    discriminator = small_discriminator(DUAL)
    image, raw = pictures(128), pictures(16)
    output = discriminator(image, raw)
    assert output.score.shape == (4, 1) and output.pose.shape == (4, 2)
    for other in (discriminator(image, pictures(16, seed=2)), discriminator(-image, raw)):
        assert not torch.allclose(other.score, output.score)
        assert not torch.allclose(other.pose, output.pose)
    # The raw image is enlarged as `resize` does it.
    enlarged = F.interpolate(raw, size=128, mode="bilinear", align_corners=False)
    assert torch.equal(resize(raw, 128), enlarged)
    torch.testing.assert_close(discriminator(image, enlarged), output)


def test_dual_discrimination_says_that_it_lacks_the_raw_rendering():
    with pytest.raises(UserError, match="needs the raw renderings"):
        small_discriminator(DUAL)(pictures(128))


def test_single_discrimination_looks_at_one():
    discriminator = small_discriminator(PLAIN)
    image = pictures(32)
    assert torch.equal(discriminator(image, pictures(32, seed=2)).score, discriminator(image).score)


def test_resize_shrinks_without_antialias():
    """Halving takes the mean of the four pixels round each new center; thirds take one pixel."""
    image = pictures(12)
    torch.testing.assert_close(resize(image, 6), F.avg_pool2d(image, 2))
    torch.testing.assert_close(resize(image, 4), image[:, :, 1::3, 1::3])
    assert resize(image, 12) is image


def test_score_depends_on_the_pose_but_does_not_teach_it():
    discriminator = small_discriminator()
    image = pictures(32)
    output = discriminator(image)
    given = discriminator(image, condition=output.pose.detach())
    torch.testing.assert_close(given.score, output.score)
    elsewhere = discriminator(image, condition=output.pose.detach() + 1)
    assert not torch.allclose(elsewhere.score, output.score)
    assert torch.equal(elsewhere.pose, output.pose)

    output.score.sum().backward()
    assert without_gradient(discriminator) == {"b4.cam_out1", "b4.cam_out2"}


def test_pose_teaches_the_trunk_and_its_own_head():
    discriminator = small_discriminator()
    discriminator(pictures(32)).pose.square().sum().backward()
    lacking = without_gradient(discriminator)
    assert {"b4.fc", "b4.out", "mapping"} <= lacking
    assert not any(name.startswith(("b32", "b16", "b8", "b4.conv", "b4.cam")) for name in lacking)


@pytest.mark.parametrize("count", [0, 2])
def test_frozen_blocks_get_no_gradient(count):
    discriminator = small_discriminator(discriminator__freeze_blocks=count)
    image = pictures(32).requires_grad_()
    output = discriminator(image)
    (output.score.sum() + output.pose.sum()).backward()
    frozen = without_gradient(discriminator)
    blocks = ["b32", "b16", "b8"]
    assert [name for name in blocks if name in frozen] == blocks[:count]
    assert image.grad.abs().sum() > 0  # the generator still learns through them


@torch.no_grad()
@pytest.mark.parametrize(
    "dtype, blocks", [(torch.float16, [128, 64]), (torch.bfloat16, [128, 64, 32, 16, 8])]
)
def test_half_precision_is_close_and_in_fp16_counted_from_the_highest_resolution(dtype, blocks):
    discriminator = small_discriminator(DUAL, discriminator__half_precision_blocks=2)
    image, raw = pictures(128), pictures(16)
    dtypes = {}

    def note(name):
        def hook(module, inputs, output):
            dtypes[name] = output.dtype

        return hook

    for block in discriminator.block_resolutions:
        discriminator.get_submodule(f"b{block}").register_forward_hook(note(block))
    full = discriminator(image, raw)
    assert set(dtypes.values()) == {torch.float32}
    discriminator.set_inner_dtype(dtype)
    mixed = discriminator(image, raw)
    assert [r for r, found in dtypes.items() if found == dtype] == blocks
    for ours, exact in zip(mixed, full, strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, exact)
        torch.testing.assert_close(ours, exact, atol=0.03, rtol=0.03)
    discriminator.set_inner_dtype(None)
    assert torch.equal(discriminator(image, raw).score, full.score)


@torch.no_grad()
def test_images_of_a_batch_are_not_independent():
    """Groups compare their members; those of different batches are apart."""
    discriminator = small_discriminator()
    image = pictures(32, 8)
    apart = torch.cat([discriminator(part).score for part in image.chunk(2)])
    assert not torch.allclose(discriminator(image).score, apart)
    torch.testing.assert_close(discriminator(image, batches=2).score, apart)
    interleaved = image.unflatten(0, (2, 4)).transpose(0, 1).flatten(0, 1)
    scores = discriminator(interleaved).score.unflatten(0, (4, 2)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(scores, apart)
