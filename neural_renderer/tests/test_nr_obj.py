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


def test_normalization_centers_and_spans(tmp_path):
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
    corner_colors = (vertices[faces] + 1) / 2  # [F, 3 vertices, 3]
    axis = torch.linspace(0, 1, 3)
    weights = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    textures = torch.einsum("ijkv,fvc->fijkc", weights, corner_colors)
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


def test_colors_of_materials(tmp_path):
    path = write(
        tmp_path,
        MATERIALS + "f 1 2 3\nusemtl green\nf 1 2 3\nusemtl unknown\nf 1 2 3\n",
        "newmtl green\nKa 1 1 1\nKd 0 0.5 0\n",
    )
    *_, textures = nr.load_obj(path, load_texture=True, texture_size=2)
    assert textures.shape == (3, 2, 2, 2, 3)
    for texture, color in zip(textures, ([1, 1, 1], [0, 0.5, 0], [1, 1, 1]), strict=True):
        assert (texture == torch.tensor(color)).all()


def at_one_point(folder, u, v, image=RED_BLUE, option="", **how):
    """The color that a face gets whose corners all lie at (u, v) in the image."""
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
    "wrapping, colors",
    [  # at u = -0.25, 1.25, 2.25
        ("REPEAT", "BRR"),
        ("MIRRORED_REPEAT", "RBR"),
        ("CLAMP_TO_EDGE", "RBB"),
        ("CLAMP_TO_BORDER", "000"),
    ],
)
def test_wrapping(tmp_path, wrapping, colors):
    names = {"R": [1, 0, 0], "B": [0, 0, 1], "0": [0, 0, 0]}
    for u, name in zip((-0.25, 1.25, 2.25), colors, strict=True):
        got = at_one_point(tmp_path, u, 0.5, texture_wrapping=wrapping)
        assert got == names[name]


def test_faces_without_coordinates_take_the_color(tmp_path):
    path = write(
        tmp_path,
        MATERIALS + "usemtl picture\nf 1 2 3\n",
        "newmtl picture\nKd 0 1 0\nmap_Kd image.png\n",
        RED_BLUE,
    )
    *_, textures = nr.load_obj(path, load_texture=True)
    assert (textures == torch.tensor([0.0, 1, 0])).all()


TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"

SPELLINGS = {
    "tabs": TETRAHEDRON.replace(" ", "\t"),
    "white space": TETRAHEDRON.replace(" ", " \t  ").replace("\n", " \t\n  "),
    "byte-order mark": "\ufeff" + TETRAHEDRON,
    "UTF-16": TETRAHEDRON.encode("utf-16"),
    "CRLF": TETRAHEDRON.replace("\n", "\r\n"),
    "CR": TETRAHEDRON.replace("\n", "\r"),
    "capitals": TETRAHEDRON.upper(),
    "comments": TETRAHEDRON.replace("\n", " # last 1 2\n"),
    "close comments": TETRAHEDRON.replace("\n", "#5\n"),
    "comments with backslash": TETRAHEDRON.replace("\n", "\n# C:\\models\\\n"),
    "continuation": TETRAHEDRON.replace(" ", " \\\n", 20),
    "continuation with CRLF": TETRAHEDRON.replace(" 0", "\\\r\n 0"),
    "continuation at the end": TETRAHEDRON + "\\",
    "no newline at the end": TETRAHEDRON.rstrip(),
    "Latin-1": "# M\u00fcller\n".encode("latin-1") + TETRAHEDRON.encode(),
    "w and colors": TETRAHEDRON.replace("v 1 0 0", "v 1 0 0 1").replace(
        "v 0 1 0", "v 0 1 0 .5 .25 1e-3"
    ),
    "numbers": TETRAHEDRON.replace("v 1 0 0", "v +1.0e0 -0 .0"),
    "other statements": "o a\ng\ng a b\ns off\n"
    + TETRAHEDRON
    + "l 1 2 3\np 1\nvp 0 1\ncstype bezier\n",
    "unknown statements": "mine 1 2\n" + TETRAHEDRON,
    "normals": "vn 0 0 1\n" + TETRAHEDRON.replace("f 1 3 2", "f 1//1 3//-1 2//1"),
    "empty parts": TETRAHEDRON.replace("f 1 3 2", "f 1/ 3// 2"),
    "face outlines": TETRAHEDRON.replace("f ", "fo "),
    "faces first": "".join(sorted(TETRAHEDRON.splitlines(True), key=lambda line: line[0])),
    "signs": TETRAHEDRON.replace("f 1 3 2", "f +1 +3 +2"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_spellings_of_a_mesh(tmp_path, spelling):
    text = SPELLINGS[spelling]
    path = tmp_path / "mesh.obj"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    vertices, faces = nr.load_obj(path, normalization=False)
    corners = vertices[faces.long()].tolist()
    o, x, y, z = [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert len(vertices) == 4
    assert corners == [[o, y, x], [o, x, z], [o, z, y], [x, y, z]]


def test_negative_indices_count_from_where_they_stand(tmp_path):
    path = write(tmp_path, "v 1 0 0\nv 2 0 0\nv 3 0 0\nf -3 -2 -1\nv 4 0 0\nf -3 -2 -1\n")
    _, faces = nr.load_obj(path)
    assert faces.tolist() == [[0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize("vt", ["vt 0.75", "vt 0.75 0.5 0", "VT\t.75\t.5", "vt 0.75 0.5 # there"])
def test_texture_coordinates_of_any_length(tmp_path, vt):
    path = write(
        tmp_path,
        f"{MATERIALS}{vt}\nusemtl p\nf 1/1 2/1 3/-1\n",
        "newmtl p\nmap_Kd image.png\n",
        RED_BLUE,
    )
    *_, textures = nr.load_obj(path, load_texture=True)
    assert (textures == torch.tensor([0.0, 0, 1])).all()


@pytest.mark.parametrize(
    "mtl",
    [
        "newmtl\tgreen\nkd\t0 1 0\n",
        "NEWMTL green\nKD 0 1 0\n",
        "\ufeffnewmtl green # as grass\r\nKd 0 1 0 # pure\r\n",
        "newmtl green\nKd 0 \\\n1 0\n",
        "newmtl green\nKa 1 1 1\nillum 2\nd 0.5\nKd 0 1 0\nmap_Ka no.png\n",
        "newmtl other\nKd 1 0 0\nnewmtl green\nKd 0 1 0\nnewmtl green2\nKd 1 1 0\n",
        "Kd 1 0 0\nnewmtl green\nKd 0 1 0\n",
    ],
)
def test_all_spellings_of_a_material(tmp_path, mtl):
    path = write(tmp_path, MATERIALS + "UseMtl  green  # light\nf 1 2 3\n", mtl)
    *_, textures = nr.load_obj(path, load_texture=True)
    assert (textures == torch.tensor([0.0, 1, 0])).all()


def test_one_number_is_a_gray(tmp_path):
    path = write(tmp_path, MATERIALS + "usemtl a\nf 1 2 3\n", "newmtl a\nKd 0.5\n")
    assert (nr.load_obj(path, load_texture=True)[2] == 0.5).all()


def test_names_may_hold_spaces_and_signs(tmp_path):
    mtl = (
        "newmtl Material #25\nKd 0 1 0\nnewmtl Material #26\nKd 0 0 1\nnewmtl Material\nKd 1 0 0\n"
    )
    uses = "".join(f"usemtl {n}\nf 1 2 3\n" for n in ("Material #25", "Material #26", "Material"))
    *_, textures = nr.load_obj(write(tmp_path, MATERIALS + uses, mtl), load_texture=True)
    assert textures[:, 0, 0, 0].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    "line",
    [
        "mtllib one.mtl two  words.mtl sub/three.mtl",
        "mtllib one.mtl two  words.mtl sub\\three.mtl # all of them",
        'mtllib "one.mtl" "two  words.mtl" "sub/three.mtl"',
        "mtllib one.mtl\nMTLLIB two  words.mtl\nmtllib\tsub/three.mtl",
    ],
)
def test_several_libraries(tmp_path, line):
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.mtl").write_text("newmtl a\nKd 1 0 0\n")
    (tmp_path / "two  words.mtl").write_text("newmtl b\nKd 0 1 0\nnewmtl a\nKd 1 1 1\n")
    (tmp_path / "sub" / "three.mtl").write_text("newmtl c\nKd 0 0 1\n")
    uses = "".join(f"usemtl {name}\nf 1 2 3\n" for name in "abc")
    path = write(tmp_path, f"{line}\nv 0 0 0\nv 1 0 0\nv 0 1 0\n{uses}")
    *_, textures = nr.load_obj(path, load_texture=True)
    assert textures[:, 0, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "text, file",
    [
        ("my picture.png", "my picture.png"),
        ("  my  picture.png\t", "my  picture.png"),
        ('"my picture.png"', "my picture.png"),
        ("a#1.png", "a#1.png"),
        ("a #1.png", "a #1.png"),
        ("a.png # the first", "a.png"),
        ("sub\\a.png", "sub/a.png"),
        ("-blendu on -mm 0 1 -s 1 1 1 my picture.png", "my picture.png"),
        ("-bm 0.5 -texres 512 -imfchan r -clamp off 1.png", "1.png"),
        ("-S 1 -o 0 0 7.png", "7.png"),
        ("-minus.png", "-minus.png"),
    ],
)
def test_names_of_images(tmp_path, text, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    Image.fromarray(RED_BLUE[:, :1]).save(tmp_path / file)
    obj = MATERIALS + "vt 0 0\nusemtl p\nf 1/1 2/1 3/1\n"
    path = write(tmp_path, obj, f"newmtl p\nMAP_KD {text}\n")
    *_, textures = nr.load_obj(path, load_texture=True)
    assert (textures == torch.tensor([1.0, 0, 0])).all()


def test_scale_and_offset_of_an_image(tmp_path):
    assert at_one_point(tmp_path, 0.125, 0.5, option="-s 2 ") == [1, 0, 0]
    assert at_one_point(tmp_path, 0.375, 0.5, option="-s 2 2 1 ") == [0, 0, 1]
    assert at_one_point(tmp_path, 0.25, 0.5, option="-o 0.5 0 0 ") == [0, 0, 1]


@pytest.mark.parametrize(
    "image, color",
    [
        (Image.fromarray(np.full((2, 2), 32768, np.uint16)), [32768 / 65535] * 3),
        (Image.fromarray(np.full((2, 2), 51, np.uint8)), [0.2] * 3),
        (Image.new("1", (2, 2), 1), [1, 1, 1]),
        (Image.new("LA", (2, 2), (51, 0)), [0.2] * 3),
        (Image.new("RGBA", (2, 2), (255, 51, 0, 10)), [1, 0.2, 0]),
        (Image.new("RGB", (2, 2), (255, 51, 0)).quantize(4), [1, 0.2, 0]),
    ],
    ids=["16-bit", "gray", "bits", "gray and alpha", "RGBA", "palette"],
)
def test_types_of_images(tmp_path, image, color):
    image.save(tmp_path / "image.png")
    assert at_one_point(tmp_path, 0.3, 0.4, image=None) == pytest.approx(color, abs=1e-4)


def test_other_formats_of_images(tmp_path):
    obj = MATERIALS + "vt 0 0\nusemtl p\nf 1/1 2/1 3/1\n"
    images = {
        "a.tif": (Image.fromarray(np.full((2, 2), 0.25, np.float32)), [0.25] * 3),
        "b.tif": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), [1, 0, 0]),
        "c.bmp": (Image.new("RGB", (2, 2), (0, 51, 0)), [0, 0.2, 0]),
    }
    for name, (image, color) in images.items():
        image.save(tmp_path / name)
        path = write(tmp_path, obj, f"newmtl p\nmap_Kd {name}\n")
        *_, textures = nr.load_obj(path, load_texture=True)
        assert textures[0, 0, 0, 0].tolist() == pytest.approx(color, abs=1e-4)


def test_huge_images_and_textures_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    wide = np.zeros((1, 6, 3), np.uint8)
    assert at_one_point(tmp_path, 0, 0, wide) == [0, 0, 0]  # Pillow would only warn
    with pytest.raises(ValueError, match="image.png is too large.*MAX_IMAGE_PIXELS"):
        at_one_point(tmp_path, 0, 0, np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="textures of 1 faces take .* GiB; choose a texture_size"):
        nr.load_obj(write(tmp_path, TETRAHEDRON[:40]), load_texture=True, texture_size=10**5)
    with pytest.raises(ValueError, match="texture_size must be"):
        nr.load_obj(tmp_path / "mesh.obj", load_texture=True, texture_size=0)


@pytest.mark.parametrize(
    "obj, message",
    [
        ("v 0 0 x\n", "mesh.obj:1: cannot read 'v 0 0 x'"),
        ("v 0 0 0\nf 1 2 3\n", "mesh.obj:2: .*no element 2"),
        ("v 0 0 0\nf 0 1 1\n", "mesh.obj:2: .*no element 0"),
        ("v 0 0 0\nf -2 1 1\n", "mesh.obj:2: .*no element -2"),
        ("v 0 0 0\nf 1/1 1/1 1/1\n", "mesh.obj:2: .*no element 1 among 0"),
        ("v 0 0 0\nf 1 1\n", "mesh.obj:2: .*three corners"),
        ("v 0 0 0\nf 1 1 1.0\n", "mesh.obj:2: .*not an index"),
        ("v 0 0 0\nf 1/1/1/1 1 1\n", "mesh.obj:2: .*not v/vt/vn"),
        ("v 0 0 0\nf 1 1 99999999999999999999\n", "mesh.obj:2: .*not an index"),
        ("v 0 0\nv 0 0 0\n", "mesh.obj:1: .*fewer than 3"),
        ("v 0 0 nan\n", "mesh.obj:1: .*not a finite number"),
        ("v 0 0 1e39\n", "mesh.obj:1: .*not a finite number"),
        ("v 0 0 1_0\n", "mesh.obj:1: .*not a number"),
        ("# a\nv 0 \\\n0\nv 0 0 0\n", "mesh.obj:2: .*fewer than 3"),
        ("vt\n", "mesh.obj:1: .*fewer than 1"),
        ("mtllib none.mtl\nv 0 0 0\nf 1 1 1\n", "none.mtl"),
        ("<!DOCTYPE html>\n<html>\n", "mesh.obj:1: .*no .obj file"),
        ("version https://git-lfs.github.com/spec/v1\n", "mesh.obj:1: .*no .obj file"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, obj, message):
    path = write(tmp_path, obj)
    with pytest.raises(ValueError, match=message) as caught:
        nr.load_obj(path, load_texture=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "mtl, message",
    [
        ("newmtl p\nKd red\n", "mesh.mtl:2"),
        ("newmtl p\nKd 1 0\n", "mesh.mtl:2: .*fewer than 3"),
        ("newmtl p\nKd spectral a.rfl\n", "mesh.mtl:2: .*red, green and blue"),
        ("newmtl p\nmap_Kd none.png\n", "cannot read the texture image .*none.png"),
        ("newmtl p\nmap_Kd\n", "cannot read the texture image"),
    ],
)
def test_bad_materials_are_refused_with_the_place(tmp_path, mtl, message):
    path = write(tmp_path, MATERIALS + "vt 0 0\nusemtl p\nf 1/1 2/1 3/1\n", mtl)
    with pytest.raises(ValueError, match=message):
        nr.load_obj(path, load_texture=True)
    assert len(nr.load_obj(path)) == 2  # who wants no textures needs no materials


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
