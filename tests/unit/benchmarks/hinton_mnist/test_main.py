import re
import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_student_learns_from_its_teacher_what_the_labels_do_not_tell():
    command = [sys.executable, "-m", "benchmarks.hinton_mnist", "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    teacher, distilled, alone = map(int, re.findall(r"\d+", done.stdout)[1:])
    assert teacher < distilled < alone
