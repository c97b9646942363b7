"""The policy that a WISE training starts from: its processor, its prompts, its coordinates and the size of its images.

Checkpoints are Hugging Face folders of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. Our own folders hold `prompts.json`, the
wording that the policy was trained with. Other policies are prompted with `prompts.DEFAULT`, which is then saved with
them. A policy goes on with the coordinates that it knows, see `wise_edge.policy.answers.conventions`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import constants, get_session, try_to_load_from_cache

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import UsageError, first_line
from wise_edge.files.documents import to_json
from wise_edge.policy.answers.conventions import Conventions, find_coordinates, write_conventions
from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import PIXELS_XY, AnswerFrame, Coordinates
from wise_edge.policy.architecture import CLASSES
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.foreign import HUB_NAME
from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.processor import has_one_square, pixel_bounds, read_image_settings, square_side
from wise_edge.policy.prompts import DEFAULT, MARKUP, PromptSet, fit_wording, following_words, read_prompts
from wise_edge.policy.quantized import refuse_quantized
from wise_edge.training.wise.config import FORMS, WiseConfig

_HUB_TIMEOUT_S = 10
_PROMPTS = "prompts.json"
_IMAGE = {"type": "image"}
_DETAILED_FIRST = following_words(
    {
        "wise": "First explain in detail inside <d_think> </d_think> how the candidates compare, then state the key "
        "reason concisely inside <think> </think>, then give the answer."
    }
)
_VARIANTS = {"concise-first": "wise", "detailed-first": "wise", "no-detailed": "wise-infer"}


@dataclass(frozen=True)
class StartPolicy:
    """A policy before training.

    Attributes:
        name: its folder, or its name on the hub.
        processor: transformers' processor, which pads on the left.
        prompts: wording of its prompts.
        input_size: side of the square that images are stretched to, px.
        dtype: torch's name of the type of its weights.
        coordinates: what the numbers of its answers count.
        form: how it is trained to write answers.
    """

    name: str
    processor: Any
    prompts: PromptSet
    input_size: int
    dtype: str
    coordinates: Coordinates = PIXELS_XY
    form: AnswerForm = BOX_POINTS

    @property
    def frame(self) -> AnswerFrame:
        """The frame of its answers."""
        return self.coordinates.frame((self.input_size, self.input_size))

    def copy_processor(self) -> Any:
        """Return a copy of the processor for a trainer, which notes in its tokenizer that it was saved with one.

        The policy's own files must not tell whether the process that wrote them had trained before.
        """
        return copy.deepcopy(self.processor)

    def messages(self, query: str, variant: str) -> list[dict[str, Any]]:
        """Return the prompt as chat messages with a place for the image."""
        return self.prompts.messages(query, variant, _IMAGE)

    def training_messages(self, query: str, order: str) -> list[dict[str, Any]]:
        """Return the prompt of a rollout with its parts in one of `ORDERS`."""
        return self._training_prompts(order).messages(query, _VARIANTS[order], _IMAGE)

    def training_wording(self, order: str) -> str:
        """Return what the prompt of a rollout says apart from the query."""
        prompts = self._training_prompts(order)
        return f"{prompts.system}\n{prompts.template(_VARIANTS[order]).user}"

    def _training_prompts(self, order: str) -> PromptSet:
        if order == "detailed-first" and self.prompts.variants == DEFAULT.variants:
            return replace(self.prompts, variants=_DETAILED_FIRST)
        return self.prompts


def open_policy(config: WiseConfig) -> StartPolicy:
    """Read everything but the weights.

    Raises:
        UsageError: the checkpoint does not exist, has no vision tower or belongs to another family, or its patches do
            not divide the requested image size.
    """
    folder = resolve_checkpoint(config.model, "policy")
    name = str(folder)
    if folder.exists():
        read_image_settings(folder, check_policy_folder(folder).get("vision_config") or {})
    elif HUB_NAME.fullmatch(name):
        _check_hub(name)
    try:
        settings = transformers.AutoConfig.from_pretrained(name)
        _check_family(config.model, settings)
        processor = transformers.AutoProcessor.from_pretrained(name, padding_side="left")
    except (OSError, ValueError) as error:
        raise UsageError(f"model {config.model}: {first_line(error)}") from error
    refuse_quantized(name, settings.to_dict(), ())  # of a folder the weights are judged too, of a name only this
    _check_words(config.model, processor)
    images = processor.image_processor
    unit = images.patch_size * images.merge_size
    least, most = pixel_bounds(folder, {"size": dict(images.size)}, unit)
    size = config.input_size or square_side(least, most, unit)
    if size % unit:
        raise UsageError(f"input_size: {size} is not a multiple of {unit}, the side of this model's image tokens")
    images.size = {"shortest_edge": size * size, "longest_edge": size * size}  # as it arrives
    dtype = str(settings.dtype or "float32").removeprefix("torch.")
    coordinates = find_coordinates(
        folder, settings.model_type, config.coordinates, one_square=has_one_square(least, most, unit)
    )
    form = FORMS[config.form]
    prompts = fit_wording(read_prompts(folder) if (folder / _PROMPTS).is_file() else DEFAULT, coordinates, form)
    _check_wording(config, prompts)
    return StartPolicy(name, processor, prompts, size, dtype, coordinates, form)


def hub_revision(name: str) -> str | None:
    """Return the commit of a policy on the hub that is used here, or None if it is a folder."""
    config = try_to_load_from_cache(name, "config.json") if not Path(name).exists() and "/" in name else None
    return Path(config).parent.name if isinstance(config, str) else None


def _check_hub(name: str) -> None:
    """Raise `UsageError` if a policy is not in the hub's cache, and the hub cannot be reached.

    transformers would try for half a minute, and print two lines each time.
    """
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)  # through proxies, too; any status will do
    except Exception as error:  # of httpx, or of requests in older versions
        folder = name.split("/")[1]
        raise UsageError(
            f"model {name} is not in the hub's cache, and the hub cannot be reached ({first_line(error)}); where it "
            f"can: hf download {name} --local-dir {folder}, then add --set model={folder}"
        ) from error


def _check_words(model: str, processor: Any) -> None:
    """Check the tokenizer and the chat template, and let both parts of the processor have the template."""
    vocabulary = processor.tokenizer.get_vocab()  # transformers makes an empty one where files are missing
    if missing := [token for token in MARKUP if token not in vocabulary]:
        raise UsageError(f"model {model}: its tokenizer lacks {missing[0]}; copy or download the whole checkpoint")
    # Older folders have it in tokenizer_config.json, where the processor does not look, or in chat_template.json, where
    # the tokenizer does not.
    template = processor.chat_template or processor.tokenizer.chat_template
    if not template:
        raise UsageError(f"model {model}: it has no chat template; copy chat_template.jinja of its base model into it")
    processor.chat_template = processor.tokenizer.chat_template = template


def _check_wording(config: WiseConfig, prompts: PromptSet) -> None:
    """Check that the set has the variants that training asks with, in a form that it knows."""
    for variant in dict.fromkeys((_VARIANTS[config.order], *config.validation.variants)):
        try:
            template = prompts.template(variant)
        except UsageError as error:
            raise UsageError(f"model {config.model}: prompts.json: {error}") from error
        if template.prefill:
            raise UsageError(
                f"model {config.model}: prompts.json: the variant {variant!r} has a prefill, with which nothing is "
                "trained; remove it"
            )
        asks = f"{prompts.system}\n{template.user}"
        named = [key for form in FORMS.values() for key in form.keys if f'"{key}"' in asks]
        if named and not any(key in named for key in FORMS[config.form].keys):
            raise UsageError(
                f"model {config.model}: its prompts ask for {named[0]!r}, which is of another form than {config.form}; "
                "set form, or give it a prompts.json whose wording asks for this one"
            )


def _check_family(model: str, settings: Any) -> None:
    if getattr(settings, "vision_config", None) is None:
        raise UsageError(f"model {model}: {settings.model_type} reads no images; choose a Qwen-VL checkpoint")
    if settings.model_type not in CLASSES:
        raise UsageError(f"model {model}: {settings.model_type} is not one of {', '.join(CLASSES)}")


def save_side_files(start: StartPolicy, folder: Path) -> None:
    """Write what a policy's folder holds beside the weights: tokenizer, image processor, prompts and conventions."""
    start.processor.tokenizer.save_pretrained(folder)
    start.processor.image_processor.save_pretrained(folder)
    (folder / _PROMPTS).write_text(to_json(start.prompts.to_dict(), indent=2) + "\n", encoding="utf-8")
    write_conventions(folder, Conventions(start.coordinates, PictureGeometry.square(start.input_size), start.form))
