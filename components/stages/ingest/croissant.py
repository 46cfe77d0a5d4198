"""The dataset's description in Croissant 1.0, a vocabulary of JSON-LD: https://docs.mlcommons.org/croissant.

Its paths are relative to a folder with the dataset's folder, ``manifest.parquet`` and the description itself: there
mlcroissant, and what else reads Croissant, finds images and labels.
"""

import glob
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reflux.components.core.artifacts import sha256_file, write_json
from reflux.components.core.contract import SPLITS
from reflux.components.stages.ingest.formats import hugging_face, parquet, tables

FILE, MANIFEST = "croissant.json", "manifest.parquet"

Json = dict[str, Any]
_PARQUET, _BYTES = "application/x-parquet", "application/octet-stream"
_TEXT, _INTEGER, _IMAGE = "sc:Text", "sc:Integer", "sc:ImageObject"
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_COLUMNS: dict[str, tuple[str | list[str], str]] = {
    "label": (["sc:Integer", "cr:Label"], "The image's class; none of an unlabeled image."),
    "split": (_TEXT, "What it is used for; none of a file that was left out, as unreadable or a repeat for example."),
    "width": (_INTEGER, "In pixels."),
    "height": (_INTEGER, "In pixels."),
    "sha256": (_TEXT, "Of its size and its pixels in RGB."),
}


def write(folder: Path, source: Path, facts: Mapping[str, Any], paths: "pd.Series[str]", license_: str | None) -> None:
    """Describe a dataset and what was taken of it, next to its manifest.

    Args:
        folder: of the manifest.
        source: the dataset's file or folder.
        facts: the contents of ``dataset.json``.
        paths: the names of its images, as in the manifest.
        license_: of the dataset, if it is stated.
    """
    top = (source.parent if source.is_file() else source).resolve().name
    in_tables = paths.str.extract(r"^(.+)#\d+$")[0]
    loose, tabled = paths[in_tables.isna()], set(in_tables.dropna())
    own = [source] if source.is_file() else parquet.files(source) or sorted(source.glob("*.csv"))
    names = {f"{top}/{tables.relative(file, source)}": file for file in own}
    holders = {name: file for name, file in names.items() if tables.relative(file, source) in tabled}
    described: Json = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts["name"],
        "description": _words(facts, top),
        "distribution": [_file(folder / MANIFEST, MANIFEST), *(_file(file, name) for name, file in names.items())],
        "recordSet": [_classes(facts["classes"]), _splits(facts["counts"]), _images(top if len(loose) else None)],
    }
    if license_:
        described["license"] = license_
    if len(loose):
        described["distribution"].append(_image_files(loose, top))
    for number, (columns, members) in enumerate(_by_columns(holders).items(), 1):
        which = f"-{number}" if number > 1 else ""
        described["distribution"].append(
            _file_set(f"tables{which}", [glob.escape(name) for name in members], [_PARQUET])
        )
        described["recordSet"].append(_rows(f"rows{which}", f"tables{which}", *columns, top))
    write_json(folder / FILE, described)


def _words(facts: Mapping[str, Any], top: str) -> str:
    counts = ", ".join(f"{facts['counts'][split]:,} {split}" for split in SPLITS if facts["counts"][split])
    return (
        f"Images of {len(facts['classes'])} classes: {counts}. The sha256 of all images, labels and splits is "
        f"{facts['fingerprint']}. Paths are relative to a folder with {top} and {MANIFEST}."
    )


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _by_columns(files: Mapping[str, Path]) -> dict[tuple[pa.Field, pa.Field | None], list[str]]:
    """The names of Parquet files by their columns of images and labels: what is read as one table has the same."""
    groups: dict[tuple[pa.Field, pa.Field | None], list[str]] = {}
    for name, file in files.items():
        if image := hugging_face.image_column(file):
            schema = pq.read_schema(file).remove_metadata()
            label = tables.label_column(schema.names)
            groups.setdefault((schema.field(image), schema.field(label) if label else None), []).append(name)
    return groups


def _file(file: Path, url: str) -> Json:
    kind = _PARQUET if _is_parquet(file) else mimetypes.guess_type(file.name)[0] or _BYTES
    return {
        "@type": "cr:FileObject",
        "@id": url,
        "name": url,
        "contentUrl": url,
        "contentSize": f"{file.stat().st_size} B",
        "encodingFormat": kind,
        "sha256": sha256_file(file),
    }


def _file_set(name: str, includes: Sequence[str], kinds: Sequence[str]) -> Json:
    kind = kinds[0] if len(kinds) == 1 else list(kinds)
    return {"@type": "cr:FileSet", "@id": name, "name": name, "includes": list(includes), "encodingFormat": kind}


def _image_files(loose: "pd.Series[str]", top: str) -> Json:
    """The set of files that are an image each."""
    suffixes = sorted(loose.str.extract(r"(\.[^./]+)$")[0].dropna().unique())
    kinds = sorted({mimetypes.guess_type(f"image{suffix}")[0] or _BYTES for suffix in suffixes})
    # By some readers **/ is one folder or more, by others none or more.
    depths = ("**/*",) if loose.str.contains("/").all() else ("*", "**/*")
    return _file_set("files", [f"{glob.escape(top)}/{depth}{end}" for end in suffixes for depth in depths], kinds)


def _classes(classes: Sequence[str]) -> Json:
    fields = [_field("classes/label", _INTEGER), _field("classes/name", _TEXT)]
    data = [{"classes/label": label, "classes/name": name} for label, name in enumerate(classes)]
    return _record_set("classes", "The classes.", fields, dataType="sc:Enumeration", data=data, key="classes/label")


def _splits(counts: Mapping[str, int]) -> Json:
    fields = [_field("splits/name", _TEXT), _field("splits/images", _INTEGER)]
    data = [{"splits/name": split, "splits/images": counts[split]} for split in SPLITS]
    return _record_set(
        "splits", "How many images each split has.", fields, dataType="cr:Split", data=data, key="splits/name"
    )


def _images(top: str | None) -> Json:
    """The images as the manifest lists them, with their pixels where they are files below the folder ``top``."""
    in_manifest = {"fileObject": {"@id": MANIFEST}}
    path = in_manifest | {"extract": {"column": "path"}}
    fields = []
    if top is None:
        fields.append(_field("images/path", _TEXT, source=path))
    else:
        in_files = {"fileSet": {"@id": "files"}}
        fields.append(_field("images/path", _TEXT, source=in_files | _below(top), references=path))
        fields.append(_field("images/image", _IMAGE, source=in_files | {"extract": {"fileProperty": "content"}}))
    links = {"label": "classes/label", "split": "splits/name"}
    for column, (kind, description) in _COLUMNS.items():
        link = {"references": {"field": {"@id": links[column]}}} if column in links else {}
        extract = in_manifest | {"extract": {"column": column}}
        fields.append(_field(f"images/{column}", kind, description, source=extract, **link))
    return _record_set("images", "The images, by their path in the dataset, or file and row: FILE#ROW.", fields)


def _below(top: str) -> Json:
    """A file's path in the dataset's folder."""
    return {"extract": {"fileProperty": "fullpath"}, "transform": {"regex": f"^{re.escape(top)}/(.+)$"}}


def _rows(name: str, file_set: str, image: pa.Field, label: pa.Field | None, top: str) -> Json:
    """The rows of Parquet files that hold the images themselves."""
    in_tables = {"fileSet": {"@id": file_set}}
    inside = {"transform": {"jsonPath": "bytes"}} if pa.types.is_struct(image.type) else {}
    fields = [
        _field(f"{name}/file", _TEXT, source=in_tables | _below(top)),
        _field(f"{name}/row", _INTEGER, source=in_tables | {"extract": {"fileProperty": "lineNumbers"}}),
        _field(f"{name}/image", _IMAGE, source=in_tables | {"extract": {"column": image.name}} | inside),
    ]
    if label is not None:
        kind = _INTEGER if pa.types.is_integer(label.type) else _TEXT
        extract = {"extract": {"column": label.name}}
        fields.append(_field(f"{name}/label", [kind, "cr:Label"], source=in_tables | extract))
    return _record_set(name, "Rows of files, with the labels that they hold; FILE#ROW is a path in images.", fields)


def _record_set(name: str, description: str, fields: list[Json], key: str | None = None, **more: Any) -> Json:
    keyed = {"key": {"@id": key}} if key else {}
    about = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description}
    return about | keyed | {"field": fields} | more


def _field(name: str, kind: str | list[str], description: str = "", **more: Any) -> Json:
    said = {"description": description} if description else {}
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind} | said | more
