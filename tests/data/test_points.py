import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precis.data.points import read_points, write_ply
from precis.data.shapes import csg_box, torus
from precis.errors import InputError

POINTS, NORMALS, _ = torus(50, seed=0)


def ply(kind: str, extra_element: bool = False) -> bytes:
    """A PLY with a colour between position and normal, written by hand."""
    head = f"ply\nformat {kind} 1.0\ncomment made by hand\n"
    if extra_element:
        head += "element material 2\nproperty uchar id\nproperty float shine\n"
    head += f"element vertex {len(POINTS)}\nproperty double x\nproperty double y\nproperty double z\n"
    head += "property uchar red\nproperty float nx\nproperty float ny\nproperty float nz\n"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = list(zip(POINTS.tolist(), NORMALS.tolist()))
    if kind == "ascii":
        body = "1 0.5\n2 0.5\n" if extra_element else ""
        body += "".join(" ".join(map(repr, p)) + " 7 " + " ".join(map(repr, n)) + "\n" for p, n in rows) + "3 0 1 2\n"
        return (head + body).encode()
    order = "<" if "little" in kind else ">"
    packed = struct.pack(order + "BfBf", 1, 0.5, 2, 0.5) if extra_element else b""
    packed += b"".join(struct.pack(order + "3dB3f", *p, 7, *n) for p, n in rows)
    return head.encode() + packed + struct.pack(order + "B3i", 3, 0, 1, 2)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("extra", [False, True])
def test_ply(tmp_path, kind, extra):
    (tmp_path / "a.ply").write_bytes(ply(kind, extra))
    found = read_points(tmp_path / "a.ply")
    np.testing.assert_allclose(found.points, POINTS, atol=1e-12)
    np.testing.assert_allclose(found.normals, NORMALS, atol=1e-6)


def test_xyz_and_npy(tmp_path):
    table = np.concatenate([POINTS, 3 * NORMALS], 1)
    np.savetxt(tmp_path / "a.xyz", table, header="x y z nx ny nz", fmt="%.17g")
    np.save(tmp_path / "a.npy", table)
    for name in ("a.xyz", "a.npy"):
        found = read_points(tmp_path / name)
        np.testing.assert_allclose(found.points, POINTS, atol=1e-15)
        np.testing.assert_allclose(found.normals, NORMALS, atol=1e-12)  # scaled to length 1
    np.savetxt(tmp_path / "b.xyz", POINTS, delimiter=",")
    assert read_points(tmp_path / "b.xyz").normals is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# only a comment\n", "no point"),
        ("1 2 3\n\n1 2 x\n", "a.xyz:3: 'x' is not a number"),
        ("1 2 3\n1 2\n", "a.xyz:2: 2 numbers where the first line has 3"),
        ("1 2 3 4\n", "4 columns"),
        ("1 2 3 0 0 1\n1 2 nan 0 0 1\n", "row 2: z is nan"),
        ("1 2 3 0 0 1\n1 2 3 0 0 0\n", "row 2: the normal is zero"),
    ],
)
def test_bad_xyz(tmp_path, text, words):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(InputError, match=words):
        read_points(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"end_header", b"end_heade", "no end_header"),
        (b"format ascii 1.0", b"format morse 1.0", "names no format"),
        (b"property double z", b"property double w", "no z"),
        (b"property double z", b"property quad z", "'property quad z' is not understood"),
        (b"element vertex 50", b"element vertex 70", "70 vertices are announced"),
        (b"element vertex 50", b"element point 50", "no element vertex"),
        (b" 7 ", b" 7 7 ", "a.ply:15: 8 values; a vertex has 7"),
        (b" 7 ", b" red ", "a.ply:15: 'red' is not a number"),
    ],
)
def test_bad_ascii_ply(tmp_path, old, new, words):
    (tmp_path / "a.ply").write_bytes(ply("ascii").replace(old, new))
    with pytest.raises(InputError, match=words):
        read_points(tmp_path / "a.ply")


def test_truncated_binary_ply_and_wrong_arrays(tmp_path):
    (tmp_path / "a.ply").write_bytes(ply("binary_little_endian")[:-500])
    with pytest.raises(InputError, match="it is cut short"):
        read_points(tmp_path / "a.ply")
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    with pytest.raises(InputError, match="5 columns"):
        read_points(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros(4))
    with pytest.raises(InputError, match=r"an array \[4\]"):
        read_points(tmp_path / "a.npy")
    (tmp_path / "a.xyz").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="no text"):
        read_points(tmp_path / "a.xyz")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_ply_raises_input_error_only(tmp_path_factory, data):
    whole = ply(data.draw(st.sampled_from(["ascii", "binary_little_endian"])))
    body = bytearray(whole[: data.draw(st.integers(1, 900))])
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.ply"
    path.write_bytes(bytes(body))
    try:
        read_points(path)
    except InputError as error:
        assert "fuzz.ply" in str(error)


def test_mesh_is_written_and_its_vertices_read_back(tmp_path):
    points, normals, _ = csg_box(30, seed=0)
    faces = np.arange(30).reshape(10, 3)
    colours = np.full((30, 3), 9, np.uint8)
    path = write_ply(tmp_path / "m.ply", points, faces, normals=normals, colours=colours)
    found = read_points(path)
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    np.testing.assert_allclose(found.normals, normals, atol=1e-6)
    body = path.read_bytes()
    assert b"element face 10" in body and len(body) == body.index(b"end_header\n") + 11 + 30 * 27 + 10 * 13
    assert struct.unpack("<B3i", body[-13:]) == (3, 27, 28, 29)
    assert read_points(write_ply(tmp_path / "p.ply", points)).normals is None
    with pytest.raises(ValueError, match="faces"):
        write_ply(tmp_path / "x.ply", points, faces + 5)
    with pytest.raises(ValueError, match="vertices"):
        write_ply(tmp_path / "x.ply", points[:, :2])
    assert not (tmp_path / "x.ply").exists()
