"""The dataset's Croissant file: true by the manifest, and read by MLCommons' own library."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reflux.components.core.artifacts import sha256_file
from reflux.components.modalities.image.pixels import decode
from tests.datasets import CLASSES, class_folders, run_ingest

MIT = "https://spdx.org/licenses/MIT"


def hugging_face(folders: Path, out: Path) -> Path:
    """The images of class folders as Parquet files of the Hugging Face layout, the unlabeled ones in their own."""
    files = sorted(folders.rglob("*.png"))
    for name, part in (
        ("all.parquet", [f for f in files if f.parent.name != "unlabeled"]),
        ("unlabeled.parquet", [f for f in files if f.parent.name == "unlabeled"]),
    ):
        columns: dict[str, Any] = {"image": pa.array([{"bytes": f.read_bytes(), "path": f.name} for f in part])}
        if name == "all.parquet":
            columns["label"] = [f.parent.name for f in part]
        out.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), out / name)
    return out


def shared(source: Path, tmp_path: Path, license_: str | None) -> Path:
    """A folder as one would share it: the dataset, its description and its manifest."""
    out, folder = tmp_path / "ingested", tmp_path / "shared"
    run_ingest(source, out, license_=license_)
    shutil.copytree(source, folder / source.name)
    for name in ("croissant.json", "manifest.parquet"):
        shutil.copy(out / name, folder / name)
    return folder


def parts(described: dict[str, Any], kind: str) -> dict[str, Any]:
    return {each["@id"]: each for each in described[kind]}


def references(value: Any) -> set[str]:
    """The ids that something below ``value`` refers to."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    return {value["@id"]} if value.keys() == {"@id"} else set().union(*map(references, value.values()))


@pytest.mark.parametrize(("form", "license_"), [("folders", MIT), ("parquet", None)])
def test_the_description_is_that_of_what_was_ingested(tmp_path: Path, form: str, license_: str | None) -> None:
    source = class_folders(tmp_path / "flowers")
    source = source if form == "folders" else hugging_face(source, tmp_path / "tables")
    folder = shared(source, tmp_path, license_)
    described = json.loads((folder / "croissant.json").read_text())
    facts = json.loads((tmp_path / "ingested/dataset.json").read_text())
    assert (described["name"], described.get("license")) == (source.name, license_)
    assert facts["fingerprint"] in described["description"]
    files, records = parts(described, "distribution"), parts(described, "recordSet")
    hashed = {name: each["sha256"] for name, each in files.items() if each["@type"] == "cr:FileObject"}
    assert hashed == {name: sha256_file(folder / name) for name in hashed}
    assert len(hashed) == (1 if form == "folders" else 3)
    assert [each["classes/name"] for each in records["classes"]["data"]] == list(CLASSES)
    assert {each["splits/name"]: each["splits/images"] for each in records["splits"]["data"]} == facts["counts"]
    fields = {field["@id"] for record in records.values() for field in record["field"]}
    assert references(described["recordSet"]) <= fields | files.keys()


def pixels_sha256(image: Any, tmp_path: Path) -> str:
    image.save(tmp_path / "image.png")
    return decode((tmp_path / "image.png").read_bytes(), 3, 8, 50).sha256


@pytest.mark.long
@pytest.mark.parametrize("form", ["folders", "parquet"])
def test_mlcroissant_finds_each_image_with_its_label_and_split(tmp_path: Path, form: str) -> None:
    mlc = pytest.importorskip("mlcroissant", reason="it needs MLCommons' reader: pip install mlcroissant")
    source = class_folders(tmp_path / "flowers")
    source = source if form == "folders" else hugging_face(source, tmp_path / "tables")
    folder = shared(source, tmp_path, MIT)
    dataset = mlc.Dataset(folder / "croissant.json")
    # What only the dataset's owner knows is recommended, and not made up.
    known = {"citeAs", "datePublished", "version"}
    assert {os.path.basename(line.split('"')[1]) for line in dataset.metadata.ctx.issues.warnings} == known

    manifest = pd.read_parquet(folder / "manifest.parquet").set_index("path")
    images = {each["images/path"].decode(): each for each in dataset.records("images")}
    assert images.keys() == set(manifest.index)
    for path, row in manifest.iterrows():
        assert images[path]["images/split"].decode() == row["split"]
        assert images[path]["images/label"] == (None if pd.isna(row["label"]) else row["label"])
    if form == "folders":
        pictures = {path: each["images/image"] for path, each in images.items()}
    else:
        rows = {
            f"{row[f'{name}/file'].decode()}#{row[f'{name}/row']}": (row[f"{name}/image"], row.get(f"{name}/label"))
            for name in ("rows", "rows-2")
            for row in dataset.records(name)
        }
        pictures = {path: image for path, (image, _) in rows.items()}
        labels = {path: label and label.decode() for path, (_, label) in rows.items()}
        assert labels == manifest["class_name"].replace({np.nan: None}).to_dict()
    assert {path: pixels_sha256(each, tmp_path) for path, each in pictures.items()} == manifest["sha256"].to_dict()
