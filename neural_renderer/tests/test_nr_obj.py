"""Files in, files out."""

import numpy as np
import pytest
import torch
from PIL import Image

import neural_renderer as nr


def write(folder, obj, mtl=None, image=None):
    (folder / "mesh.obj").write_text(obj)
    if mtl:
        (folder / "mesh.mtl").write_text(mtl)
    if image is not None:
        Image.fromarray(image).save(folder / "image.png")
    return folder / "mesh.obj"


def test_all_ways_to_write_a_face(tmp_path):
    path = write(
        tmp_path,
        "# a comment\nv 0 0 0\nv 1 0 0 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\n"
        "f 1 2 3\nf 1/1 2/1 3/1\nf 1//1 2//1 3//1\nf 1/1/1 2/1/1 3/1/1\nf -4 -3 -2\nf 1 2 3 4\n",
    )
    vertices, faces = nr.load_obj(path, normalization=False)
    assert vertices.dtype == torch.float32 and faces.dtype == torch.int32
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces.tolist() == [[0, 1, 2]] * 6 + [[0, 2, 3]]


def test_normalization_centres_and_spans(tmp_path):
    path = write(tmp_path, "v 1 2 3\nv 5 3 3\nv 1 2 5\nf 1 2 3\n")
    vertices, _ = nr.load_obj(path)
    assert vertices.amin(0).tolist() == [-1, -0.25, -0.5]
    assert vertices.amax(0).tolist() == [1, 0.25, 0.5]


def test_save_and_load_give_the_same_mesh(tmp_path, sphere):
    (vertices,), (faces,) = sphere()
    nr.save_obj(tmp_path / "mesh.obj", vertices, faces)
    loaded_vertices, loaded_faces = nr.load_obj(tmp_path / "mesh.obj", normalization=False)
    torch.testing.assert_close(loaded_vertices, vertices)
    assert torch.equal(loaded_faces, faces.int())


def test_textures_survive_in_an_atlas(tmp_path, sphere):
    """Smooth textures come back from the image, as seen in a rendering."""
    (vertices,), (faces,) = sphere(6, 8)
    corner_colours = (vertices[faces] + 1) / 2  # [F, 3 vertices, 3]
    axis = torch.linspace(0, 1, 3)
    weights = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    textures = torch.einsum("ijkv,fvc->fijkc", weights, corner_colours)
    mesh = nr.Mesh(vertices, faces, textures)
    mesh.save(tmp_path / "mesh.obj")
    loaded = nr.Mesh.fromobj(tmp_path / "mesh.obj", load_texture=True, texture_size=8)
    assert (loaded.num_vertices, loaded.num_faces, loaded.texture_size) == (42, 80, 8)
    renderer = nr.Renderer(64, camera_mode="look_at", light_intensity_ambient=1)
    pictures = [
        renderer(m.vertices[None], m.faces[None], m.textures[None], mode="rgb")
        for m in (mesh, loaded)
    ]
    assert (pictures[0] - pictures[1]).abs().max() < 0.08
    assert (pictures[0] - pictures[1]).abs().mean() < 0.01


MATERIALS = "mtllib mesh.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\n"
RED_BLUE = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)  # left, right


def test_colours_of_materials(tmp_path):
    path = write(
        tmp_path,
        MATERIALS + "f 1 2 3\nusemtl green\nf 1 2 3\nusemtl unknown\nf 1 2 3\n",
        "newmtl green\nKa 1 1 1\nKd 0 0.5 0\n",
    )
    *_, textures = nr.load_obj(path, load_texture=True, texture_size=2)
    assert textures.shape == (3, 2, 2, 2, 3)
    for texture, colour in zip(textures, ([1, 1, 1], [0, 0.5, 0], [1, 1, 1]), strict=True):
        assert (texture == torch.tensor(colour)).all()


def at_one_point(folder, u, v, image=RED_BLUE, option="", **how):
    """The colour that a face gets whose corners all lie at (u, v) in the image."""
    path = write(
        folder,
        MATERIALS + f"vt {u} {v}\nusemtl picture\nf 1/1 2/1 3/1\n",
        f"newmtl picture\nKd 0 1 0\nmap_Kd {option}image.png\n",
        image,
    )
    *_, textures = nr.load_obj(path, load_texture=True, texture_size=3, **how)
    assert (textures == textures[0, 0, 0, 0]).all()
    return textures[0, 0, 0, 0].tolist()


def test_lookup_in_an_image(tmp_path):
    assert at_one_point(tmp_path, 0.25, 0.5) == [1, 0, 0]
    assert at_one_point(tmp_path, 0.75, 0.5) == [0, 0, 1]
    assert at_one_point(tmp_path, 0.5, 0.5) == [0.5, 0, 0.5]
    assert at_one_point(tmp_path, 0.49, 0.5, use_bilinear=False) == [1, 0, 0]
    assert at_one_point(tmp_path, 0.25, 0.5, option="-s 1 1 1 ") == [1, 0, 0]
    above_below = np.ascontiguousarray(RED_BLUE.transpose(1, 0, 2))
    assert at_one_point(tmp_path, 0.5, 0.75, above_below) == [1, 0, 0]  # v runs up


@pytest.mark.parametrize(
    "wrapping, colours",
    [  # at u = -0.25, 1.25, 2.25
        ("REPEAT", "BRR"),
        ("MIRRORED_REPEAT", "RBR"),
        ("CLAMP_TO_EDGE", "RBB"),
        ("CLAMP_TO_BORDER", "000"),
    ],
)
def test_wrapping(tmp_path, wrapping, colours):
    names = {"R": [1, 0, 0], "B": [0, 0, 1], "0": [0, 0, 0]}
    for u, name in zip((-0.25, 1.25, 2.25), colours, strict=True):
        got = at_one_point(tmp_path, u, 0.5, texture_wrapping=wrapping)
        assert got == names[name]


def test_faces_without_coordinates_take_the_colour(tmp_path):
    path = write(
        tmp_path,
        MATERIALS + "usemtl picture\nf 1 2 3\n",
        "newmtl picture\nKd 0 1 0\nmap_Kd image.png\n",
        RED_BLUE,
    )
    *_, textures = nr.load_obj(path, load_texture=True)
    assert (textures == torch.tensor([0.0, 1, 0])).all()


@pytest.mark.parametrize(
    "obj, message",
    [
        ("v 0 0 x\n", "mesh.obj:1: cannot read 'v 0 0 x'"),
        ("v 0 0 0\nf 1 2 3\n", "mesh.obj:2: .*no element 2"),
        ("v 0 0 0\nf 0 1 1\n", "mesh.obj:2: .*no element 0"),
        ("v 0 0\nv 0 0 0\n", "fewer than 3"),
        ("mtllib none.mtl\nv 0 0 0\nf 1 1 1\n", "none.mtl"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, obj, message):
    with pytest.raises(ValueError, match=message):
        nr.load_obj(write(tmp_path, obj), load_texture=True)


def test_missing_files_and_modes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot read .*none.obj"):
        nr.load_obj(tmp_path / "none.obj")
    with pytest.raises(ValueError, match="cannot read the texture image"):
        (tmp_path / "image.png").write_bytes(b"no image")
        at_one_point(tmp_path, 0, 0, image=None)
    with pytest.raises(ValueError, match="texture_wrapping"):
        nr.load_obj(tmp_path / "none.obj", texture_wrapping="FOLD")


def test_an_empty_mesh(tmp_path):
    vertices, faces, textures = nr.load_obj(write(tmp_path, "# nothing\n"), load_texture=True)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3) and textures.shape == (0, 4, 4, 4, 3)
