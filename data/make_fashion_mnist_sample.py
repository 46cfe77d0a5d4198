"""Make the sample of Fashion-MNIST that ships with Reflux from the full set.

    python data/make_fashion_mnist_sample.py FULL_SET [OUT]

FULL_SET holds train.parquet (60,000 rows) and test.parquet (10,000 rows) in the Hugging Face layout. OUT (by default
data/fashion-mnist) receives train, val, test and unlabeled.parquet; the same full set always gives the same bytes.
"""

import argparse
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

SEED = 20240501
LABELLED_A_CLASS, UNLABELED, TEST_A_CLASS = 50, 9_000, 500
CLASSES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


def content_hash(png: bytes) -> str:
    """The sha256 of an image's pixels, so that another compression of the same picture is the same picture."""
    return hashlib.sha256(Image.open(io.BytesIO(png)).convert("L").tobytes()).hexdigest()


def first_of_each(hashes: list[str], seen: set[str]) -> NDArray[np.bool_]:
    """True where an image appears for the first time, here and in what was ``seen`` before."""
    keep = np.zeros(len(hashes), dtype=bool)
    for row, digest in enumerate(hashes):
        keep[row] = digest not in seen
        seen.add(digest)
    return keep


def choose(
    train_labels: NDArray[np.int64],
    train_keep: NDArray[np.bool_],
    test_labels: NDArray[np.int64],
    test_keep: NDArray[np.bool_],
) -> dict[str, NDArray[np.int64]]:
    """The rows of each split: labeled ones stratified, unlabeled ones drawn as they come, as in life."""
    rng = np.random.default_rng(SEED)
    by_class = [rng.permutation(np.flatnonzero(train_labels == label)) for label in range(len(CLASSES))]
    by_class = [rows[train_keep[rows]] for rows in by_class]
    n = LABELLED_A_CLASS
    rows = {
        "train": rng.permutation(np.concatenate([r[:n] for r in by_class])),
        "val": rng.permutation(np.concatenate([r[n : 2 * n] for r in by_class])),
        "unlabeled": rng.permutation(np.concatenate([r[2 * n :] for r in by_class]))[:UNLABELED],
    }
    test_by_class = [rng.permutation(np.flatnonzero(test_labels == label)) for label in range(len(CLASSES))]
    rows["test"] = rng.permutation(np.concatenate([r[test_keep[r]][:TEST_A_CLASS] for r in test_by_class]))
    return rows


def write(path: Path, source: pa.Table, official: str, rows: NDArray[np.int64], labeled: bool) -> None:
    """Write the chosen rows; each image's path says which row of which official split it is."""
    png = source["image"].combine_chunks().field("bytes").take(pa.array(rows))
    names = pa.array([f"{official}-{row:05d}.png" for row in rows])
    columns = {"image": pa.StructArray.from_arrays([png, names], ["bytes", "path"])}
    features: dict[str, object] = {"image": {"_type": "Image"}}
    if labeled:
        columns["label"] = source["label"].combine_chunks().take(pa.array(rows))
        features["label"] = {"names": CLASSES, "_type": "ClassLabel"}
    info = json.dumps({"info": {"features": features}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def main() -> None:
    """Read the full set, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full_set", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "fashion-mnist")
    arguments = parser.parse_args()
    train, test = (pq.read_table(arguments.full_set / f"{name}.parquet") for name in ("train", "test"))
    seen: set[str] = set()
    # The official splits share a few pictures: the test split keeps them, the training pool loses them.
    test_keep, train_keep = (
        first_of_each([content_hash(png) for png in table["image"].combine_chunks().field("bytes").to_pylist()], seen)
        for table in (test, train)
    )
    rows = choose(train["label"].to_numpy(), train_keep, test["label"].to_numpy(), test_keep)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, chosen in rows.items():
        source, official = (test, "test") if split == "test" else (train, "train")
        write(arguments.out / f"{split}.parquet", source, official, chosen, labeled=split != "unlabeled")


if __name__ == "__main__":
    main()
