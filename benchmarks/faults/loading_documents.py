"""Loaders of documents: manifests, recipes, logs, reports, profiles, tables of a meter, environments, answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from oracle import Fault, run_command
from workers import Loader

import wise_edge.training.sam.config
import wise_edge.training.sft.config
import wise_edge.training.wise.config  # noqa: F401 - warm, before the fork
from profile_documents import make_document
from wise_edge.bundle import store
from wise_edge.bundle.card import render_card
from wise_edge.bundle.engines import ArraySpec, BuildPlan, GraphPlan, ShapeRange, Sidecar
from wise_edge.errors import UsageError
from wise_edge.evaluation.record_log import open_log, write_log
from wise_edge.evaluation.records import Record, Settings
from wise_edge.evaluation.shards import choose_gpu, find_shard
from wise_edge.files.cache import cache_folder
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import FORMS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.policy.prompts import EMBEDDED, normalize_query, read_prompts
from wise_edge.profiling.document import read_document
from wise_edge.profiling.page import render_page
from wise_edge.profiling.wall_meter import check_wall_meter, read_wall_meter
from wise_edge.rle import compressed_runs, mask_of_runs
from wise_edge.runtimes.deadline import LatencyHistory
from wise_edge.runtimes.deadline_options import RICHEST_FIRST, list_options
from wise_edge.training.common.step_log import drop_records_after, read_log
from wise_edge.training.recipe import load_recipe
from wise_edge.training.wise.reading import read_completion, read_list
from wise_edge.training.wise.warm_start import read_demonstrations

_MASK = np.indices((12, 17)).sum(axis=0) % 5 < 2
_LIST = (
    "<think>There are two.</think>"
    '<answer>[{"bbox_2d": [10, 20, 60, 80], "point_2d": [30, 40]},'
    ' {"bbox_2d": [1, 2, 6, 8], "point_2d": [3, 4]}]</answer>'
)
_COMPLETION = (
    "<think>The mug is left of the bowl.</think>"
    '<answer>{"bbox": [10, 20, 60, 80], "points_1": [30, 40], "points_2": [35, 50]}</answer><d_think>x</d_think>'
)
_ENVIRONMENT = {
    "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "SOURCE_DATE_EPOCH": "1700000000", "XDG_CACHE_HOME": "/tmp",
    "CUDA_VISIBLE_DEVICES": "0,1", "NO_COLOR": "1", "COLUMNS": "80", "WISE_EDGE_TOKEN": "secret",
}  # fmt: skip


def _copy_bundle(folder: Path) -> None:
    """Copy the embedded bundle's manifest, with files of one byte in place of the others."""
    source = store.resolve_bundle(None)
    manifest = json.loads((source / "bundle.json").read_text())
    for artifact in manifest["artifacts"]:
        (folder / artifact["path"]).write_bytes(b"x")
        artifact |= {"bytes": 1, "sha256": store.hash_file(folder / artifact["path"])}
    (folder / "bundle.json").write_text(json.dumps(manifest, indent=1))


def _read_bundle(folder: Path) -> None:
    bundle = store.load(folder, verify_hashes=True)
    manifest = bundle.manifest
    render_card(manifest, "0" * 64)
    json.dumps(manifest.to_dict())
    bundle.unlisted_files()
    _ = manifest.policy.max_image_tokens, manifest.policy.context_tokens


def _settings() -> Settings:
    return Settings("scenes", "test", 3, "lisa", "predicted", "wise-s", "0" * 64, {"policy": "onnx", "mask": "onnx"})


def _records() -> list[Record]:
    return [
        Record(
            index=place, id=f"test-{place}", kind="color", query="the red ring", intersection_px=80, union_px=100,
            iou=0.8, dropped=None, score=0.9, latency_ms={"decode": 3.0, "total": 20.0}, mask=compressed_runs(_MASK),
            answer_valid=True, box_iou=0.9, rationale_tokens=10, answer_tokens=50, text=_COMPLETION,
        )
        for place in range(3)
    ]  # fmt: skip


def _write_logs(folder: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_log(folder / name, _settings(), _records())


def _resume_log(folder: Path) -> None:
    with open_log(folder / "a.jsonl", _settings(), resume=True) as log:
        figures = [record.terms() for record in log.records]
        json.dumps(figures, allow_nan=False)
        log.append(_records()[0])


def _write_reports(folder: Path) -> None:
    for name, dataset in (("a.json", "reasonseg"), ("b.json", "refcoco")):
        report = {
            "dataset": dataset, "split": "val", "model": "m", "variant": "wise-s", "metric_mode": "lisa",
            "samples": 100, "giou": 0.5, "ciou": 0.6, "rationale_tokens_mean": 22.5, "by_kind": {"long": {"giou": 0.1}},
        }  # fmt: skip
        (folder / name).write_text(json.dumps(report))


def _write_profiles(folder: Path) -> None:
    for name in ("a.json", "b.json"):
        (folder / name).write_text(json.dumps(make_document()))


def _read_profile(folder: Path) -> None:
    document = read_document(folder / "a.json")
    render_page(document)


def _write_meter(folder: Path) -> None:
    lines = [f"2026-01-01T00:00:{second:02d}Z,{10 + second / 7:.2f},x" for second in range(20)]
    (folder / "meter.csv").write_text("\n".join(["Time (UTC),Power (W),note", *lines]) + "\n")
    lines = [f"{1767225600 + second};{10 + second / 7:.2f}".replace(".", ",") for second in range(20)]
    (folder / "comma.csv").write_text("\n".join(["unix;power_mw", *lines]) + "\n")


def _read_meter(folder: Path) -> None:
    for name in ("meter.csv", "comma.csv"):
        check_wall_meter(folder / name, 1767225610.0)
        trace = read_wall_meter(folder / name, during=(1767225600.0, 1767225620.0))
        if not np.isfinite(trace.energy(1767225601.0, 1767225610.0).energy_j or 0.0):
            raise Fault("an energy that is not finite")


def _write_sidecars(folder: Path) -> None:
    shapes = ShapeRange((1, 1, 64), (1, 16, 64), (1, 320, 64))
    array = ArraySpec("inputs_embeds", "float32", (1, -1, 64))
    sidecar = Sidecar(
        "policy.decoder", "0" * 64, "tensorrt", "10.3", ("8.7",), ("float16",), (array,), (array,),
        {"inputs_embeds": shapes}, 10, "0" * 64,
    )  # fmt: skip
    (folder / "sidecar.json").write_text(sidecar.to_json())
    plan = BuildPlan(("orin",), (GraphPlan("policy.decoder", {"inputs_embeds": shapes}),))
    (folder / "plan.json").write_text(plan.to_json())


def _read_sidecars(folder: Path) -> None:
    sidecar = Sidecar.read(folder / "sidecar.json")
    asdict(sidecar)
    asdict(BuildPlan.read(folder / "plan.json"))
    sidecar.check(folder / "x.engine", "tensorrt", "10.3", (8, 7))


def _write_recipe(folder: Path) -> None:
    from importlib.resources import files

    for recipe in (files("wise_edge.training") / "recipes").iterdir():
        if recipe.name.endswith(".yaml"):
            (folder / recipe.name).write_text(recipe.read_text())


def _read_recipes(folder: Path) -> None:
    """Read each recipe, so that a refusal is of the one that was mutated."""
    for file in sorted(folder.glob("*.yaml")):
        load_recipe(str(file))


def _write_overrides(folder: Path) -> None:
    items = {
        "embedded-sam": ["steps=10000", "seed=1"],
        "embedded-policy": ["phases.0.steps=10", "optimizer.muon_lr=1e-2"],
    }
    for recipe, overrides in items.items():
        for place, item in enumerate(overrides):
            (folder / f"{recipe}+{place}.txt").write_text(item)


def _read_overrides(folder: Path) -> None:
    for file in sorted(folder.glob("*.txt")):
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        load_recipe(file.name.split("+")[0], [text])


def _write_step_logs(folder: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1.0 / step, "seconds": 2.0}) for step in range(1, 9)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")


def _read_step_logs(folder: Path) -> None:
    read_log(folder / "train.jsonl")
    drop_records_after(folder / "train.jsonl", 5)


def _write_demonstrations(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"x")
    line = json.dumps({"image": "0.png", "query": "the mug", "completion": _COMPLETION})
    (folder / "warm.jsonl").write_text(f"{line}\n{line}\n")


def _read_environment(folder: Path) -> None:
    text = (folder / "environment.json").read_text(encoding="utf-8", errors="surrogateescape")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = {"WORLD_SIZE": text[:1000], "RANK": text[1000:2000]}
    kept, values = dict(os.environ), found if isinstance(found, dict) else {"RANK": found, "WORLD_SIZE": "3"}
    try:
        for name, value in values.items():
            if name in _ENVIRONMENT and "\0" not in str(value) and not _has_surrogates(str(value)):
                os.environ[name] = str(value)[:100_000]
        shard = find_shard(None)
        shard.places(10)
        choose_gpu()
        store.creation_time()
        cache_folder()
        run_command("profile", "plan")
    finally:
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)
        os.environ.update(kept)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _text_of(folder: Path, name: str) -> str:
    return (folder / name).read_bytes().decode("utf-8", "surrogateescape")


def _read_answer(folder: Path) -> None:
    text = _text_of(folder, "answer.txt")
    frame = AnswerFrame((840, 840))
    for form in FORMS.values():
        found = parse_answer(text, form, frame)
        for item in found.answer.objects if found.answer else ():
            if not all(0 <= value <= 840 for value in item.box):
                raise Fault(f"a box outside of the square: {item.box}")
        read_list(text, form, frame)
    split_completion(text)
    read_completion(text)


def _read_masks(folder: Path) -> None:
    runs = json.loads((folder / "runs.json").read_text())
    try:
        mask = mask_of_runs(runs)
    except (ValueError, TypeError, KeyError) as error:  # the log that it is read from says which line
        raise UsageError(str(error)) from error
    if list(mask.shape) != list(runs["size"]):
        raise Fault("a mask of another size")


def _as_documents(read: Callable[[Path], None], *names: str) -> Callable[[Path], None]:
    """Let a loader see only what is JSON, where the caller has read the document."""

    def reading(folder: Path) -> None:
        for name in names:
            try:
                json.loads((folder / name).read_text())
            except (ValueError, RecursionError) as error:
                raise UsageError("no JSON") from error
        read(folder)

    return reading


def _write_queries(folder: Path) -> None:
    (folder / "query.txt").write_text("the mug left of the bowl")
    (folder / "prompts.json").write_text(json.dumps(EMBEDDED.to_dict()))


def _read_queries(folder: Path) -> None:
    prompts = read_prompts(folder)
    prompts.render(normalize_query(_text_of(folder, "query.txt")), "wise-s", 16)


def _write_history(folder: Path) -> None:
    (folder / "latency.json").write_text(
        json.dumps(
            {
                "completions": {"answer_steps": [40], "wise-s": [12]},
                "all": {
                    "frame_ms": [30.0],
                    "image_ms": [20.0],
                    "image_tokens": [16],
                    "query_ms": [5.0],
                    "step_ms": [2.0],
                },
            }
        )
    )


def _read_history(folder: Path) -> None:
    history = LatencyHistory.read(folder / "latency.json")
    choice = history.choose(200.0, list_options(RICHEST_FIRST, None, None))
    json.dumps(asdict(choice), allow_nan=False)
    history.write(folder / "kept.json")


def _copy_two_bundles(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        _copy_bundle(folder / name)


LOADERS = (
    Loader("manifest", _copy_bundle, _read_bundle, "bundle.json", share=4.0),
    Loader(
        "bundle show", _copy_bundle, lambda f: run_command("bundle", "show", str(f), "--json"), "bundle.json", share=0.1
    ),
    Loader("bundle verify", _copy_bundle, lambda f: run_command("bundle", "verify", str(f)), "bundle.json", share=0.1),
    Loader(
        "bundle diff",
        _copy_two_bundles,
        lambda f: run_command("bundle", "diff", str(f / "a"), str(f / "b"), "--json", succeeds=(0, 1)),
        "bundle.json",
        share=0.1,
    ),
    Loader("sidecar and plan", _write_sidecars, _read_sidecars, "*.json", share=5.0),
    Loader("records, resumed", _write_logs, _resume_log, "a.jsonl", share=4.0),
    Loader(
        "evaluate compare",
        _write_logs,
        lambda f: run_command("evaluate", "compare", str(f / "a.jsonl"), str(f / "b.jsonl"), "--json"),
        "*.jsonl",
        share=0.1,
    ),
    Loader(
        "evaluate gallery",
        _write_logs,
        lambda f: run_command(
            "evaluate", "gallery", str(f / "a.jsonl"), str(f / "b.jsonl"), "--out", str(f / "page.html"), "--force"
        ),
        "*.jsonl",
        share=0.2,
    ),
    Loader(
        "evaluate table",
        _write_reports,
        lambda f: run_command("evaluate", "table", str(f / "a.json"), str(f / "b.json")),
        "*.json",
        share=0.2,
    ),
    Loader("profile page", _write_profiles, _read_profile, "a.json", share=3.0),
    Loader(
        "profile compare",
        _write_profiles,
        lambda f: run_command("profile", "compare", str(f / "a.json"), str(f / "b.json"), "--json"),
        "*.json",
        share=0.2,
    ),
    Loader(
        "profile compare, in words",
        _write_profiles,
        lambda f: run_command("profile", "compare", str(f / "a.json"), str(f / "b.json"), "--max-regression", "5"),
        "*.json",
        share=0.1,
    ),
    Loader("wall meter", _write_meter, _read_meter, share=5.0),
    Loader("recipe", _write_recipe, _read_recipes, share=0.3),
    Loader("overrides", _write_overrides, _read_overrides, share=2.0),
    Loader("training log", _write_step_logs, _read_step_logs, share=4.0),
    Loader(
        "demonstrations", _write_demonstrations, lambda f: read_demonstrations(f / "warm.jsonl"), "*.jsonl", share=4.0
    ),
    Loader(
        "environment",
        lambda f: (f / "environment.json").write_text(json.dumps(_ENVIRONMENT)),
        _read_environment,
        share=0.3,
    ),
    Loader("answer", lambda f: (f / "answer.txt").write_text(_COMPLETION), _read_answer, share=5.0),
    Loader("answer of several", lambda f: (f / "answer.txt").write_text(_LIST), _read_answer, share=5.0),
    Loader(
        "run lengths",
        lambda f: (f / "runs.json").write_text(json.dumps(compressed_runs(_MASK))),
        _as_documents(_read_masks, "runs.json"),
        share=2.0,
    ),
    Loader("query and prompts", _write_queries, _read_queries, share=5.0),
    Loader("latency history", _write_history, _read_history, "latency.json", share=3.0),
)
