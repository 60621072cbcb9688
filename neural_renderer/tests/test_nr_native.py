"""The native kernels against the torch reference, and how one is chosen."""

import shutil
import warnings

import pytest
import torch

import neural_renderer as nr
from neural_renderer.ops import native

needs_compiler = pytest.mark.skipif(
    native.library(torch.device("cpu"), "auto") is None, reason="the native op cannot be built here"
)


def results(ops, dtype, perspective, anti_aliasing=True, size=33, channels=("rgb", "alpha")):
    """Images and gradients of random faces, some of them behind the camera."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)

    faces = rand(2, 40, 3, 3) * 3 - 1.5
    faces[..., 2] = rand(2, 40, 3) * 3 - (0.3 if perspective else -0.3)
    textures = rand(2, 40, 3, 3, 3, 3)
    faces.requires_grad_(), textures.requires_grad_()
    out = nr.rasterize_rgbad(
        faces,
        textures,
        size,
        anti_aliasing,
        return_rgb="rgb" in channels,
        return_alpha="alpha" in channels,
        perspective=perspective,
        ops=ops,
    )
    images = [image for image in out.values() if image is not None]
    sum((image * (rand(*image.shape) - 0.5)).sum() for image in images).backward()
    gradients = [faces.grad] + ([textures.grad] if "rgb" in channels else [])
    return [image.detach() for image in images], gradients


def assert_same(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        assert b.norm() > 0
        assert (a - b).norm() / b.norm() < tolerance


@needs_compiler
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("channels", [("rgb", "alpha"), ("rgb",), ("alpha",)])
def test_native_agrees_with_torch(dtype, tolerance, perspective, channels):
    images, gradients = results("native", dtype, perspective, channels=channels)
    expected_images, expected_gradients = results("torch", dtype, perspective, channels=channels)
    assert_same(images, expected_images, 1e-6)
    assert_same(gradients, expected_gradients, tolerance)


@needs_compiler
def test_threads_change_nothing():
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            images, gradients = results("native", torch.float32, True)
            runs.append(images + gradients)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_cuda_source_compiles(tmp_path, monkeypatch, architecture):
    monkeypatch.setenv("NEURAL_RENDERER_CACHE", str(tmp_path))
    options = (*native.CUDA_OPTIONS, f"-arch={architecture}", "-Werror", "all-warnings")
    assert native.KERNELS.build("rasterize.cu", options).stat().st_size > 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_native_on_cuda_agrees_with_torch_on_cpu(sphere):
    vertices, faces = sphere()
    for name in ("rgb", "depth", "silhouettes"):
        pictures = []
        for device, ops in (("cpu", "torch"), ("cuda", "native")):
            moved = vertices.to(device).requires_grad_()
            image = nr.Renderer(64, camera_mode="look_at", ops=ops)(
                moved, faces.to(device), mode=name
            )
            (image**2).sum().backward()
            pictures.append((image.detach().cpu(), moved.grad.cpu()))
        for a, b in zip(*pictures, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_torch_takes_over_after_one_line(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    faces = torch.tensor([[[[-1.0, -1, 1], [1, -1, 1], [0, 1, 1]]]])
    native.KERNELS.forget()
    try:
        assert [nr.rasterize_silhouettes(faces, 8).sum().item() for _ in range(2)] == [32, 32]
        assert len(caplog.records) == 1 and "no-such-compiler" in caplog.text
        with pytest.raises(RuntimeError, match="no-such-compiler"):
            nr.rasterize_silhouettes(faces, 8, ops="native")
    finally:
        native.KERNELS.forget()


def test_the_environment_chooses(monkeypatch):
    faces = torch.zeros(1, 1, 3, 3)
    monkeypatch.setattr(native, "rasterize", None)  # cannot be called
    monkeypatch.setenv("NEURAL_RENDERER_OPS", "torch")
    nr.rasterize_silhouettes(faces, 8)
    monkeypatch.setenv("NEURAL_RENDERER_OPS", "nothing")
    with pytest.raises(ValueError, match="not 'nothing'"):
        nr.rasterize_silhouettes(faces, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nr.rasterize_silhouettes(faces, 8, ops="torch")  # the argument comes first
