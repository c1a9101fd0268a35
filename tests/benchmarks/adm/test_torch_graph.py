"""The frozen graph in PyTorch: TensorFlow's features, on a graph of the public one's shape and on the golden one.

`true_shape.npz` holds what TensorFlow 2.15.0 (CPU) gave for two images of each size on `true_shape.write`'s graph:
every 16th pool and every 17th spatial feature.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.adm.evaluation import Features, evaluate, evaluator_statistics
from benchmarks.adm.interface import Options
from benchmarks.adm.torch_graph import TorchGraph
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project, home_dir
from harness.contract.errors import MissingAsset
from harness.planning.make import scorer_environment
from harness.runtimes.venv import VenvRuntime
from harness.scoring.networks.inception import InceptionV3
from tests.benchmarks.adm import true_shape

ROOT = Path(__file__).parents[3]
CHECK = ROOT / "benchmarks" / "adm" / "check"
TINY = CHECK / "assets" / "adm-inception-graph" / "classify_image_graph_def.pb"
STORED = Path(__file__).parent / "true_shape.npz"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

Graph = tuple[Path, dict[str, np.ndarray]]
Write = Callable[[true_shape.Builder], Path]


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    path = tmp_path_factory.mktemp("graph") / "classify_image_graph_def.pb"
    return path, true_shape.write(path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(builder: true_shape.Builder) -> Path:
        path = tmp_path / "classify_image_graph_def.pb"
        path.write_bytes(builder.graph.SerializeToString())
        return path

    return write


# --- the same numbers ------------------------------------------------------------------------------------------------


def test_a_graph_of_inceptions_shape_gives_tensorflows_features(inception: Graph) -> None:
    graph = TorchGraph(inception[0], device="cpu")
    with np.load(STORED) as stored:
        for size in (64, 256, 330):
            pool, spatial = graph.features(true_shape.images(2, size))
            assert (pool.shape, spatial.shape, pool.dtype) == ((2, 2048), (2, 2023), np.float32)
            np.testing.assert_allclose(pool[:, ::16], stored[f"pool_{size}"], **CLOSE)
            np.testing.assert_allclose(spatial[:, ::17], stored[f"spatial_{size}"], **CLOSE)
        np.testing.assert_array_equal(graph.classifier[::128, ::63], stored["classifier"])


def test_it_is_the_fid_inception_where_nothing_is_resized(inception: Graph) -> None:
    """The other way round: the same weights in the network that was taken from the public graph."""
    path, state = inception
    network = InceptionV3().eval()
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()}, strict=False)
    images_u8 = true_shape.images(2, 299)
    images_01 = torch.from_numpy(images_u8).permute(0, 3, 1, 2) / 256  # (v - 128) / 128 is 2 x - 1
    with torch.inference_mode():
        wanted = network(images_01).numpy()
    np.testing.assert_allclose(TorchGraph(path, device="cpu").features(images_u8)[0], wanted, **CLOSE)


def test_the_golden_case_has_tensorflows_gfid() -> None:
    graph = TorchGraph(TINY, device="cpu")
    reference = np.load(next((CHECK / "assets" / "adm-imagenet256-reference").iterdir()))["arr_0"]
    of_reference, of_samples = (
        graph.features(x) for x in (reference, np.load(CHECK / "samples" / "samples.npz")["arr_0"])
    )
    features = Features(
        sample_pool=of_samples[0],
        sample_spatial=of_samples[1],
        reference_pool=of_reference[0],
        reference_pool_statistics=evaluator_statistics(of_reference[0]),
        reference_spatial_statistics=evaluator_statistics(of_reference[1]),
        classifier=graph.classifier,
    )
    result = evaluate(features, Options(backend="torch"))
    assert result.gfid == pytest.approx(2.648393156803415, rel=1e-4)
    assert result.sfid == pytest.approx(127.74850755434443, rel=1e-4)
    assert result.inception_score == pytest.approx(2.1585347652435303, rel=1e-4)


@pytest.mark.slow
def test_every_feature_is_that_of_tensorflow_in_its_own_environment(inception: Graph, tmp_path: Path) -> None:
    runtime = VenvRuntime(find_project(), home_dir())
    environment = scorer_environment(Catalog.load(find_project()).benchmark("adm"))
    runtime.prepare(environment, print)
    for size in (64, 299, 330):
        np.save(tmp_path / f"{size}.npy", true_shape.images(3, size))
    script = (
        "import sys, numpy as np; from pathlib import Path; from benchmarks.adm.inception_graph import InceptionGraph\n"
        "graph, folder = InceptionGraph(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "for file in folder.glob('*.npy'): np.savez(file.with_suffix('.npz'), *graph.features(np.load(file)))"
    )
    subprocess.run(
        [runtime.python(environment), "-c", script, str(inception[0]), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    graph = TorchGraph(inception[0], device="cpu")
    for size in (64, 299, 330):
        with np.load(tmp_path / f"{size}.npz") as theirs:
            for ours, wanted in zip(graph.features(true_shape.images(3, size)), theirs.values(), strict=True):
                np.testing.assert_allclose(ours, wanted, **CLOSE)


def test_the_features_of_an_image_do_not_depend_on_the_others(inception: Graph) -> None:
    graph, images_u8 = TorchGraph(inception[0], device="cpu"), true_shape.images(3, 64)
    together, alone = graph.features(images_u8), graph.features(images_u8[1:2])
    for several, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(several[1:2], one, **CLOSE)


# --- files that are something else -----------------------------------------------------------------------------------


def with_node(op: str, **attributes: object) -> true_shape.Builder:
    """The smallest graph whose pool features come out of a node of this kind."""
    builder = true_shape.Builder()
    builder.add("DecodeJpeg", "Placeholder", dtype=1)
    builder.add("ExpandDims", "ExpandDims", ["DecodeJpeg", builder.constant("axis", 0, np.int32)], T=1)
    builder.add("mixed_6/conv", "Relu", ["ExpandDims"], T=1)
    builder.add("pool_3", op, ["mixed_6/conv"], T=1, **attributes)
    weights = builder.constant("softmax/weights", np.zeros((3, 2)))
    builder.add("softmax/logits/MatMul", "MatMul", ["pool_3", weights], T=1)
    return builder


@pytest.mark.parametrize(
    ("op", "attributes", "sentence"),
    [
        ("LRN", {}, "'pool_3' is of the kind 'LRN', which the PyTorch backend does not know"),
        ("AvgPool", {"padding": "EXPLICIT", "ksize": [1, 2, 2, 1], "strides": [1, 1, 1, 1]}, "has padding 'EXPLICIT'"),
        ("AvgPool", {"padding": "SAME", "ksize": [1, 2, 2, 2], "strides": [1, 1, 1, 1]}, "has ksize"),
        ("AvgPool", {"padding": "SAME", "ksize": [1, 10**9, 2, 1], "strides": [1, 1, 1, 1]}, "has ksize"),
        ("MaxPool", {"padding": "SAME", "ksize": [1, 2, 2, 1], "strides": [1, 1, 1, 1], "data_format": "NCHW"}, "NCHW"),
    ],
)
def test_what_is_not_known_is_one_sentence(write: Write, op: str, attributes: dict, sentence: str) -> None:
    path = write(with_node(op, **attributes))
    with pytest.raises(MissingAsset, match=sentence) as caught:
        TorchGraph(path, device="cpu")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_small_graph_is_read(write: Write) -> None:
    pool, spatial = TorchGraph(write(with_node("Relu6")), device="cpu").features(np.full((2, 4, 5, 3), 9, np.uint8))
    assert (pool.shape, spatial.shape) == ((2, 60), (2, 60)) and pool.max() == 6


def test_a_graph_that_reads_itself_or_lacks_a_node_is_refused(write: Write) -> None:
    for name, sentence in (("pool_3", "reads its own output"), ("nobody", "has no node 'nobody'")):
        builder = with_node("Relu")
        next(node for node in builder.graph.node if node.name == "mixed_6/conv").input[0] = name
        with pytest.raises(MissingAsset, match=sentence):
            TorchGraph(write(builder), device="cpu")


def test_a_constant_is_no_larger_than_its_file(write: Write) -> None:
    builder = with_node("Relu")
    shape = (
        next(node for node in builder.graph.node if node.name == "softmax/weights").attr["value"].tensor.tensor_shape
    )
    shape.dim[0].size = 1 << 40
    with pytest.raises(MissingAsset, match="the constant 'softmax/weights' has"):
        TorchGraph(write(builder), device="cpu")


def test_a_constant_of_one_repeated_value_is_filled(write: Write) -> None:
    builder = with_node("Relu")
    tensor = next(node for node in builder.graph.node if node.name == "softmax/weights").attr["value"].tensor
    tensor.ClearField("tensor_content")
    tensor.float_val.append(7)
    np.testing.assert_array_equal(TorchGraph(write(builder), device="cpu").classifier, np.full((3, 2), 7, np.float32))


def damaged_files(whole: bytes) -> Iterator[bytes]:
    """Mostly damaged where the structure is: most bytes are weights."""
    rng = random.Random(0)
    for number in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3))):
            damaged[rng.randrange(400) if number % 2 else -1 - rng.randrange(9000)] = rng.randrange(256)
        yield bytes(damaged if number % 5 else damaged[: rng.randrange(len(whole))])


def test_a_damaged_file_is_read_or_named(tmp_path: Path) -> None:
    path, sentences = tmp_path / "classify_image_graph_def.pb", []
    for damaged in damaged_files(TINY.read_bytes()):
        path.write_bytes(damaged)
        with contextlib.suppress(MissingAsset):
            TorchGraph(path, device="cpu")
            continue
        with pytest.raises(MissingAsset) as caught:
            TorchGraph(path, device="cpu")
        sentences.append(str(caught.value))
    assert len(sentences) > 50
    assert all(sentence.startswith(str(path)) and "\n" not in sentence for sentence in sentences)
