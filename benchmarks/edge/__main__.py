"""What the files of a student cost and lose: fp32 and int8, each in its own runtime, for three networks.

    .venv/bin/python -m benchmarks.edge                 # after `reflux run`: its student
    .venv/bin/python -m benchmarks.edge --run CHECKOUT  # the student of another checkout's last run

The default student is the one that the run trained, with its accuracy on the whole test split. ``resnet8x4`` and
``mobilenetv3_small_100`` (64 pixels, three channels) have random weights and the BatchNorm statistics of images: their
bytes and times mean something, their answers would not. ``int8, defaults`` is what onnxruntime's
``quantize_static`` makes without a choice of ours: int8 activations, one scale a tensor, 8-bit weights, ranges from the
same images. ``int4 weights`` has 4-bit weights with a scale for each output channel, and uint8 activations. Times are
those of ``reflux bench``: of the processor, in multiples of the ONNX fp32 file's, run in turn, the median of 15 rounds
and its interval. Files of other runtimes are measured where these are installed
(``pip install executorch ai-edge-litert openvino``). It prints the table and writes ``benchmarks/results/edge.json``.
"""

from functools import partial

from benchmarks.edge.command import run_benchmark
from benchmarks.edge.files import installed, write_files
from benchmarks.edge.report import section

if __name__ == "__main__":
    run_benchmark("edge", __doc__, partial(write_files, others=installed()), section)
