from pathlib import Path

from benchmarks.harness.results import Figure, write
from benchmarks.scale import MEASURED, section


def test_the_table_has_a_column_for_each_number_of_images(tmp_path: Path):
    figures = [
        Figure(f"{stage}_{count}k_{unit}", value, value, value, unit)
        for count in (1000, 10)
        for stage in MEASURED
        for unit, value in (("s", 5.4), ("images_per_s", 7.0), ("peak_mb", 1234.0 + count))
    ]
    write("scale", figures, tmp_path)
    text = section(tmp_path)
    assert text.startswith("| stage | 10,000 images | 1,000,000 images |\n")
    assert "| `label` | 5 s, 1,244 MB | 5 s, 2,234 MB |\n" in text
