"""Features in a file are those of the encoder, in the order of the images, whatever happened on the way."""

import csv
import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from encoder_folders import written
from PIL import Image

import barlow
from barlow import exits, storage
from barlow.data.centre import centre_views
from barlow.data.sources import open_source
from barlow.encoders import find_encoder
from barlow.features import feature_files, stored_features
from barlow.features.embedding import Embedded, embed
from barlow.features.feature_files import Part, Parts

BATCH = 8


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data") / "photos", 60, classes=3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smallest encoder."""
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    return written(tmp_path_factory.mktemp("encoder"), "resnet18", size=16, options=options)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of sixteen images."""
    monkeypatch.setattr("barlow.features.embedding.PART", 16)


def embedded(encoder: Path, photos: Path, out: Path, **options: Any) -> Embedded:
    done = embed(encoder, photos, out, batch_size=BATCH, device="cpu", **options)
    assert done is not None
    return done


def bare(encoder: Path, paths: list[Path]) -> np.ndarray:
    """The encoder called as a user would, one batch after the other."""
    network: Any = find_encoder(encoder).network
    with torch.no_grad():
        parts = [network(network.preprocess(paths[i : i + BATCH])) for i in range(0, len(paths), BATCH)]
    return torch.cat(parts).numpy()


def indexed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_matrix_and_its_index_have_every_image_in_order(encoder: Path, photos: Path, tmp_path: Path) -> None:
    done = embedded(encoder, photos, tmp_path / "f.npy")
    rows, matrix = indexed(tmp_path / "f.csv"), np.load(tmp_path / "f.npy")
    assert (done.rows, done.width, matrix.dtype) == (60, 8, np.float32)
    assert [int(row["id"]) for row in rows] == list(range(60))
    assert [row["path"] for row in rows] == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    assert all(row["path"].startswith(row["label"] + "/") for row in rows)
    np.testing.assert_allclose(matrix, bare(encoder, [photos / row["path"] for row in rows]), rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.csv", "f.npy"], "the parts are removed"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_parquet_file_has_vectors_of_fixed_size(encoder: Path, photos: Path, tmp_path: Path, dtype: str) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    embedded(encoder, photos, tmp_path / "f.parquet", dtype=dtype)
    embedded(encoder, photos, tmp_path / "f.npy", dtype=dtype)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.schema.names == ["id", "path", "label", "vector"]
    kind = table.schema.field("vector").type
    assert (kind.list_size, str(kind.value_type)) == (8, {"float16": "halffloat", "float32": "float"}[dtype])
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 8)
    np.testing.assert_array_equal(vectors, np.load(tmp_path / "f.npy"))
    assert table["path"].to_pylist() == [row["path"] for row in indexed(tmp_path / "f.csv")]
    about = json.loads(table.schema.metadata[b"barlow"])
    assert about["preprocessing"]["size"] == 16


def test_rows_are_grouped_whatever_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    sizes = [3, 0, 8, 1, 5, 20, 2]
    parts, start = [], 0
    for size in sizes:
        features = torch.from_numpy(generator.standard_normal((size, 2)).astype(np.float32))
        parts.append(Part(np.arange(start, start + size), features, []))
        start += size
    groups = list(feature_files._in_groups(iter(parts), 8))
    assert [len(ids) for ids, _ in groups] == [8, 8, 8, 8, 7]
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in groups]), np.arange(sum(sizes)))
    whole = torch.cat([part.features for part in parts]).numpy()
    np.testing.assert_array_equal(np.concatenate([features for _, features in groups]), whole)


def test_images_without_classes_have_no_label(encoder: Path, tmp_path: Path) -> None:
    flat = tiny.images(tmp_path / "flat", 5)
    embedded(encoder, flat, tmp_path / "f.npy")
    assert [row["label"] for row in indexed(tmp_path / "f.csv")] == [""] * 5


def test_an_image_that_cannot_be_read_has_no_row_and_is_listed(encoder: Path, tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 40)
    for name in ("003.png", "020.png", "039.png"):
        (photos / name).write_bytes(b"this is no image")
    lines: list[str] = []
    done = embedded(encoder, photos, tmp_path / "f.npy", tell=lines.append)
    assert done.rows == 37 == len(np.load(tmp_path / "f.npy")) == len(indexed(tmp_path / "f.csv"))
    assert [row["id"] for row in done.skipped] == [3, 20, 39]
    assert storage.read_json(tmp_path / "f.npy.skipped.json") == done.skipped
    assert any("3 of 40 images cannot be read" in line and "f.npy.skipped.json" in line for line in lines)
    left = [path for path in sorted(photos.iterdir()) if path.name not in ("003.png", "020.png", "039.png")]
    assert [row["path"] for row in indexed(tmp_path / "f.csv")] == [path.name for path in left]


def test_nothing_readable_is_an_error_and_no_file_that_looks_finished(encoder: Path, tmp_path: Path) -> None:
    photos = tiny.images(tmp_path / "photos", 3)
    for path in photos.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(exits.UnusableData, match="none of 3 images"):
        embedded(encoder, photos, tmp_path / "f.npy")
    assert not (tmp_path / "f.npy").exists()


def half_done(encoder: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedding ends after two parts."""
    write = Parts.write

    def stopping(parts: Parts, part: int, content: Part) -> None:
        if part == 2:
            raise KeyboardInterrupt
        write(parts, part, content)

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            embedded(encoder, photos, out)


def test_what_was_stopped_goes_on_and_the_files_are_equal_to_the_byte(
    encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded(encoder, photos, tmp_path / "straight.npy")
    half_done(encoder, photos, tmp_path / "f.npy", monkeypatch)
    assert not (tmp_path / "f.npy").exists()
    computed: list[int] = []
    write = Parts.write

    def counting(parts: Parts, part: int, content: Part) -> None:
        computed.append(part)
        write(parts, part, content)

    monkeypatch.setattr(Parts, "write", counting)
    lines: list[str] = []
    embedded(encoder, photos, tmp_path / "f.npy", tell=lines.append)
    assert computed == [2, 3]
    assert "going on: 2 of 4 parts are there" in lines
    for ending in ("npy", "csv"):
        assert (tmp_path / f"f.{ending}").read_bytes() == (tmp_path / f"straight.{ending}").read_bytes()


def test_parts_of_another_encoder_other_images_or_another_type_are_refused(
    encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_done(encoder, photos, tmp_path / "f.npy", monkeypatch)
    other = tiny.images(tmp_path / "other", 10)
    with pytest.raises(exits.UnusableData, match="of another images"):
        embedded(encoder, other, tmp_path / "f.npy")
    with pytest.raises(exits.UnusableData, match="of another dtype"):
        embedded(encoder, photos, tmp_path / "f.npy", dtype="float16")
    other_network: Any = find_encoder(encoder).network
    with torch.no_grad():
        other_network.bn1.bias.add_(1)
    with pytest.raises(exits.UnusableData, match="of another encoder"):
        embedded(other_network, photos, tmp_path / "f.npy")
    assert embedded(encoder, photos, tmp_path / "f.npy").rows == 60


def test_a_damaged_part_is_computed_again(
    encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded(encoder, photos, tmp_path / "straight.npy")
    half_done(encoder, photos, tmp_path / "f.npy", monkeypatch)
    part = tmp_path / "f.npy.parts" / "part-00000001.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="the same command computes it again"):
        embedded(encoder, photos, tmp_path / "f.npy")
    embedded(encoder, photos, tmp_path / "f.npy")
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "straight.npy").read_bytes()


def test_a_file_that_is_there_is_replaced_only_on_request(encoder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    out.write_bytes(b"mine")
    with pytest.raises(storage.CannotCreate, match=r"exists: use overwrite=?.* to replace it"):
        embedded(encoder, photos, out)
    assert out.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]
    embedded(encoder, photos, out, overwrite=True)
    assert np.load(out).shape == (60, 8)


def test_a_folder_of_somebody_else_is_left_alone(encoder: Path, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "f.npy.parts"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(exits.UnusableData, match="not barlow's"):
        embedded(encoder, photos, tmp_path / "f.npy")
    assert (other / "thesis.txt").read_text() == "mine"
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_wrong_words_get_one_line(encoder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ends in \.parquet or \.npy"):
        embed(encoder, photos, tmp_path / "f.txt")
    with pytest.raises(ValueError, match="float16 or float32"):
        embed(encoder, photos, tmp_path / "f.npy", dtype="int8")
    with pytest.raises(ValueError, match="at least 1"):
        embed(encoder, photos, tmp_path / "f.npy", batch_size=0)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'barlow\[embed\]', or give a name that ends in \.npy"):
        embed(encoder, photos, tmp_path / "f.parquet")


def test_numbers_that_half_precision_cannot_hold_are_an_error_that_names_the_image(
    encoder: Path, photos: Path, tmp_path: Path
) -> None:
    network: Any = find_encoder(encoder).network
    with torch.no_grad():
        network.layer4[-1].bn2.bias.fill_(1e6)
    with pytest.raises(ValueError, match=r"class0/000\.png are not finite; dtype=float32 holds larger numbers|dtype"):
        embedded(network, photos, tmp_path / "f.npy", dtype="float16")


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_embedding_costs_little_beside_decoding_and_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Processor time, interleaved, medians of three: 0.95 of a bare loop over the same batches, at least."""
    monkeypatch.setattr("barlow.features.embedding.PART", feature_files.PART)
    monkeypatch.setattr("barlow.features.embedding.available_cores", lambda: 1)
    photos = tiny.images(tmp_path / "photos", 300, side=96)
    found = find_encoder("random:resnet18", image_size=96)
    source = open_source(str(photos))

    def views() -> Iterator[torch.Tensor]:
        return centre_views(source, np.arange(300), found.preprocessing, batch_size=64, workers=1)

    ready = list(views())

    def network_alone() -> None:
        with torch.no_grad():
            for batch in ready:
                found.network(batch)

    def bare_loop() -> None:
        with torch.no_grad():
            for batch in views():
                found.network(batch)

    def whole() -> None:
        embed(found.network, photos, tmp_path / "f.npy", batch_size=64, device="cpu", overwrite=True)

    spent: dict[str, list[float]] = {"network": [], "loop": [], "embed": []}
    for _ in range(4):
        for name, work in zip(spent, (network_alone, bare_loop, whole), strict=True):
            began = time.process_time()
            work()
            spent[name].append(time.process_time() - began)
    median = {name: sorted(times[1:])[1] for name, times in spent.items()}  # the first of each warms up
    for name, seconds in median.items():
        record_property(name, seconds)
    assert median["loop"] / median["embed"] >= 0.95, median


# --- Embedder ---------------------------------------------------------------------------------------------------------


def test_an_embedder_takes_paths_arrays_pictures_and_bytes(encoder: Path, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:5]
    made = barlow.Embedder(encoder, batch_size=2)
    vectors = made([str(path) for path in paths])
    assert (vectors.shape, vectors.dtype) == ((5, made.width), np.float32)
    np.testing.assert_allclose(vectors, bare(encoder, paths), rtol=1e-5, atol=1e-6)
    others: list[Any] = [
        np.asarray(Image.open(paths[0])),
        Image.open(paths[1]),
        paths[2].read_bytes(),
        {"bytes": paths[3].read_bytes(), "path": None},
        {"bytes": None, "path": str(paths[4])},
    ]
    np.testing.assert_array_equal(made(others), vectors)
    np.testing.assert_allclose(made(paths[0]), vectors[:1], rtol=1e-5, atol=1e-6)
    assert made([]).shape == (0, made.width)
    assert barlow.Embedder(encoder, dtype="float16")(paths).dtype == np.float16


def test_a_table_gets_one_more_column(encoder: Path, photos: Path) -> None:
    paths = [str(path) for path in sorted(photos.rglob("*.png"))[:3]]
    made = barlow.Embedder(encoder, column="file", output="v", keep=["name"])
    table: Mapping[str, Any] = {"file": np.array(paths), "name": ["a", "b", "c"], "more": [1, 2, 3]}
    found = made(table)
    assert list(found) == ["name", "v"]
    assert found["v"].shape == (3, made.width)
    with pytest.raises(ValueError, match="no column 'file'; there are image"):
        made({"image": paths})


def test_an_embedder_can_be_sent_elsewhere_and_notices_another_encoder(
    encoder: Path, photos: Path, tmp_path: Path
) -> None:
    paths = sorted(photos.rglob("*.png"))[:3]
    copy = tmp_path / "encoder"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((encoder / name).read_bytes())
    made = barlow.Embedder(copy)
    sent = pickle.dumps(made)
    assert len(sent) < 5_000, "the weights stay where they are"
    np.testing.assert_array_equal(pickle.loads(sent)(paths), made(paths))
    other = storage.read_tensors(copy / "model.safetensors")
    other["bn1.bias"] += 1
    data = storage.tensors_bytes(other)
    storage.write_bytes(copy / "model.safetensors", data)
    config = storage.read_sealed(copy / "config.json")
    from barlow.seals import sha256

    storage.write_sealed(copy / "config.json", config | {"model_sha256": sha256(data)})
    with pytest.raises(ValueError, match="is another encoder here than where the Embedder was made"):
        pickle.loads(sent)(paths)


@pytest.mark.parametrize("key", ["mean", "size", "crop_ratio"])
def test_an_embedder_notices_that_the_encoder_wants_to_see_images_otherwise(
    key: str, encoder: Path, photos: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(encoder, tmp_path / "encoder")
    sent = pickle.dumps(barlow.Embedder(copy))
    config = storage.read_sealed(copy / "config.json")
    config["preprocessing"][key] = {"mean": [0.1, 0.4, 0.3], "size": 24, "crop_ratio": 0.5}[key]
    storage.write_sealed(copy / "config.json", config)
    with pytest.raises(ValueError, match=r"is another encoder here .* or what it expects of an image: make it again"):
        pickle.loads(sent)([sorted(photos.rglob("*.png"))[0]])


@pytest.mark.parametrize("how", ["one array", "an array of arrays"])
def test_a_column_of_arrays_is_taken_as_ray_reads_images(how: str, encoder: Path, photos: Path) -> None:
    """`ray.data.read_images` gives (n, h, w, 3), and where sizes differ an array of arrays."""
    paths = sorted(photos.rglob("*.png"))[:3]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    column: Any = np.stack(arrays)
    if how == "an array of arrays":
        arrays[1] = arrays[1][:20]
        column = np.empty(3, object)
        column[:] = arrays
    made = barlow.Embedder(encoder, keep=["path"])
    found = made({"image": column, "path": np.array([str(path) for path in paths])})
    assert list(found["path"]) == [str(path) for path in paths]
    np.testing.assert_allclose(found["vector"][[0, 2]], bare(encoder, [paths[0], paths[2]]), rtol=1e-5, atol=1e-6)


def test_a_wrong_image_is_named(encoder: Path) -> None:
    with pytest.raises(ValueError, match="cannot read an image of 4 bytes"):
        barlow.Embedder(encoder)([b"none"])


@pytest.mark.filterwarnings("ignore")
def test_datasets_maps_it(encoder: Path, photos: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    cache = str(tmp_path / "cache.arrow")
    mapped = table.map(barlow.Embedder(encoder), batched=True, batch_size=BATCH, cache_file_name=cache)
    assert mapped.column_names == ["image", "vector"]
    np.testing.assert_allclose(np.array(mapped["vector"]), bare(encoder, list(map(Path, paths))), rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
def test_ray_maps_batches_with_it(encoder: Path, photos: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    data = pytest.importorskip("ray.data", reason="ray[data] is not installed")
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    read = {
        "image": lambda: data.from_items([{"image": path} for path in paths]),
        "path": lambda: data.read_images([str(photos / f"class{k}") for k in range(3)], include_paths=True),
    }
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        for kept, rows in read.items():  # paths, and then arrays, as docs/embedding.md has it
            mapped = rows().map_batches(
                barlow.Embedder,
                fn_constructor_args=[str(encoder)],
                fn_constructor_kwargs={"keep": [kept]},
                batch_size=BATCH,
                concurrency=1,
            )
            found = {row[kept]: row["vector"] for row in mapped.take_all()}
            assert found.keys() == set(paths)
            expected = bare(encoder, list(map(Path, paths)))
            np.testing.assert_allclose(np.stack([found[path] for path in paths]), expected, rtol=1e-4, atol=1e-5)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("name", ["f.npy", "f.parquet"])
def test_a_file_is_read_as_it_was_written(encoder: Path, photos: Path, tmp_path: Path, name: str) -> None:
    if name == "f.parquet":
        pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `embed`)")
    embedded(encoder, photos, tmp_path / name, dtype="float16")
    embedded(encoder, photos, tmp_path / "same.npy", dtype="float16")
    file = stored_features.read(tmp_path / name)
    np.testing.assert_array_equal(file.vectors.numpy(), np.load(tmp_path / "same.npy").astype(np.float32))
    assert file.vectors.dtype == torch.float32
    assert file.ids.tolist() == list(range(60))
    assert file.paths == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    if name == "f.parquet":
        assert file.encoder is not None
        assert file.encoder == find_encoder(encoder).identity


def test_what_is_no_file_of_features_is_told_in_one_line(encoder: Path, photos: Path, tmp_path: Path) -> None:
    embedded(encoder, photos, tmp_path / "f.npy")
    path, index = tmp_path / "f.npy", tmp_path / "f.csv"
    lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
    index.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(exits.UnusableData, match=r"has 60 rows, and .* 59: they do not belong together"):
        stored_features.read(path)
    index.unlink()
    with pytest.raises(exits.UnusableData, match=r"has no .*f\.csv beside it"):
        stored_features.read(path)
    for content in (b"", b"no matrix", path.read_bytes()[:200]):
        index.write_text("".join(lines), encoding="utf-8")
        path.write_bytes(content)
        with pytest.raises(exits.UnusableData, match=r"f\.npy is no file that barlow embed has written"):
            stored_features.read(path)
    np.save(path, np.array([{"code": 1}], dtype=object))
    with pytest.raises(exits.UnusableData, match="is no file that barlow embed has written"):
        stored_features.read(path)
