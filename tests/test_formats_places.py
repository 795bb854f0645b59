"""Tables of places: every convention of pixels turned into one, and damaged tables refused."""

import json

import pytest

from vesalius.core.errors import UsageError
from vesalius.formats.places import is_mias, read_places

MIAS = """Some words about the films.
mdb001 G CIRC B 535 425 197
mdb003 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb059 F CIRC B *NOTE 3*
mdb223 D SPIC B 523 482 29
"""


def test_mias_gives_circles_negatives_and_the_unknown(tmp_path):
    table = tmp_path / "Info.txt"
    table.write_text(MIAS)
    assert is_mias(table)
    rows = {row.image: row for row in read_places(table, {})}
    assert [len(rows[name].spots) for name in ("mdb001", "mdb003", "mdb005", "mdb223")] == [1, 0, 2, 1]
    assert not rows["mdb059"].known and rows["mdb003"].known
    spot = rows["mdb001"].spots[0]
    assert (spot.name, spot.centre, spot.radius, spot.from_below) == ("lesion", (535.0, 425.0), 197.0, True)
    assert spot.attributes == {"abnormality": "CIRC", "severity": "benign"}
    assert rows["mdb001"].covariates == {"tissue": "fatty-glandular"}


def test_coco_voc_and_csv_agree_on_one_box(tmp_path):
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "mass"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [10, 5, 4, 6]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    voc = tmp_path / "voc"
    voc.mkdir()
    box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>14</xmax><ymax>11</ymax></bndbox>"
    (voc / "a.xml").write_text(
        f"<annotation><filename>a.png</filename><object><name>mass</name>{box}</object></annotation>"
    )
    (tmp_path / "boxes.csv").write_text("input,class,x,y,width,height\na.png,mass,11.5,7.5,4,6\nb.png,,,,,\n")
    read = [read_places(path, {}) for path in (tmp_path / "coco.json", voc, tmp_path / "boxes.csv")]
    for rows in read:
        spot = rows[0].spots[0]
        assert (rows[0].image, spot.name, spot.centre, spot.size) == ("a.png", "mass", (11.5, 7.5), (4.0, 6.0))
    assert read[0][1].spots == read[2][1].spots == ()


def test_yolo_gives_shares_and_names(tmp_path):
    (tmp_path / "classes.txt").write_text("mass\ncalcification\n")
    (tmp_path / "a.txt").write_text("1 0.5 0.25 0.1 0.2\n")
    (tmp_path / "b.txt").write_text("")
    rows = {row.image: row.spots for row in read_places(tmp_path, {})}
    assert rows["b"] == () and rows["a"][0].name == "calcification" and rows["a"][0].share
    assert read_places(tmp_path, {1: "dots"})[0].spots[0].name == "dots"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coco.json", "{"),
        ("coco.json", '{"images": [{"id": 1}]}'),
        ("coco.json", "[1, 2]"),
        ("a.xml", "<annotation><object><name>x</name></object></annotation>"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'),
        ("a.xml", "<annotation>"),
        ("boxes.csv", "a,b\n1,2\n"),
        ("boxes.csv", "input,x,y\na.png,one,2\n"),
        ("boxes.csv", ""),
    ],
)
def test_damaged_tables_are_refused_with_a_remedy(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_places(path, {})
    assert raised.value.remedy and str(path) in str(raised.value.file)


def test_an_empty_folder_holds_no_places(tmp_path):
    with pytest.raises(UsageError, match="no places"):
        read_places(tmp_path, {})
