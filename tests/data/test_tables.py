import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precis.data.tables import read_table
from precis.errors import InputError


def table(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(tmp_path / name)


def test_kinds_of_columns(tmp_path):
    found = table(tmp_path, 'n,x,name,gap,day,yes\n1,0.5,a,,2024-01-02,true\n2,,"b, c",7,,false\n')
    assert found.columns["n"].dtype == np.int64 and found.columns["n"].tolist() == [1, 2]
    np.testing.assert_array_equal(found.columns["x"], [0.5, np.nan])
    assert found.columns["name"].tolist() == ["a", "b, c"]
    np.testing.assert_array_equal(found.columns["gap"], [np.nan, 7])
    assert found.columns["day"].tolist() == ["2024-01-02", ""] and found.columns["yes"].tolist() == [1, 0]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.tsv", "x\ty\n1\t2\n"), ("a.csv", "x;y\r\n1;2\r\n"), ("a.csv", "\ufeffx,y\n1,2\n"), ("a.csv", 'x,"y"\n1,2')],
)
def test_dialects(tmp_path, name, text):
    found = table(tmp_path, text, name)
    assert {k: v.tolist() for k, v in found.columns.items()} == {"x": [1], "y": [2]}


def test_a_line_break_inside_a_cell_and_no_header(tmp_path):
    assert table(tmp_path, 'x,y\n"a\nb",1\nc,2\n').columns["x"].tolist() == ["a\nb", "c"]
    np.testing.assert_array_equal(table(tmp_path, "1,2.5\n3,4\n").numbers(["0", "1"]), [[1, 2.5], [3, 4]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("x,y\n", "no rows"),
        ("x,x\n1,2\n", "two columns called 'x'"),
        ("x,\n1,2\n", "column 2 has no name"),
        ("x,y\n1,2\n1,2,3\n", "row 2: 3 cells where the header has 2"),
        ("1,2\n1,2,3\n", "row 2: 3 cells"),
        (b"x,y\n\xff\xfe,2\n", "not in UTF-8"),
        (b"x\0y", "no text"),
    ],
)
def test_malformed(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        table(tmp_path, text)
    assert "a.csv" in str(caught.value)


def test_numbers_name_row_and_column(tmp_path):
    found = table(tmp_path, "x,y,z\n1,2,3\n4,abc,\n5,inf,6\n")
    np.testing.assert_array_equal(found.numbers(["x"]), [[1], [4], [5]])
    with pytest.raises(InputError, match=r"a\.csv, row 2: column 'y': 'abc' is not a number") as caught:
        found.numbers(["x", "y"])
    assert caught.value.row == 2
    with pytest.raises(InputError, match="row 2: column 'z'.* empty"):
        found.numbers(["z"])
    np.testing.assert_array_equal(found.numbers(["z"], missing=True)[:, 0], [3, np.nan, 6])
    with pytest.raises(InputError, match="row 3: column 'y': 'inf' is not finite"):
        table(tmp_path, "x,y\n1,2\n4,3\n5,inf\n").numbers()
    with pytest.raises(InputError, match="no column 'Y'; did you mean|there are 'x'"):
        found.column("Y")
    assert found.first("file", "Z") == "z" and found.first("nothing") is None


def test_parquet(tmp_path):
    day = datetime.date(2024, 1, 2)
    pq.write_table(pa.table({"x": [1, None], "s": ["a", None], "d": [day, day]}), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found.columns["x"], [1, np.nan])
    assert found.columns["s"].tolist() == ["a", ""] and found.columns["d"][0] == "2024-01-02"
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="no whole Parquet"):
        read_table(tmp_path / "b.parquet")


def test_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3, dtype=np.float32), m=np.ones((3, 2)), s=np.array(["a", "b", "c"]))
    found = read_table(tmp_path / "a.npz")
    assert found.numbers(["x", "m"]).shape == (3, 3) and found.columns["s"].dtype.kind == "U"
    np.save(tmp_path / "a.npy", np.arange(6).reshape(3, 2))
    assert read_table(tmp_path / "a.npy").columns["1"].tolist() == [1, 3, 5]
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.arange(4))
    with pytest.raises(InputError, match="'x' has 3, 'y' has 4"):
        read_table(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=np.arange(3) * 1j)
    with pytest.raises(InputError, match="complex128"):
        read_table(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="never loaded"):
        read_table(tmp_path / "a.npz")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"x,y\n1,2\n", b"PAR1", b"\x93NUMPY\1\0", b"PK\3\4"]))
def test_random_bytes_raise_input_error_or_give_a_table(tmp_path_factory, tail, lead):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(lead + tail)
    try:
        assert len(read_table(path)) > 0
    except InputError as error:
        assert "fuzz.csv" in str(error)
