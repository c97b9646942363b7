"""What a segmenter that follows objects in videos exports in addition, and transformers' own forward passes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wise_edge.bundle.manifest import Figure
from wise_edge.bundle.roles import MEMORY_GRAPHS
from wise_edge.export.to_onnx.families import SegmenterGraphs
from wise_edge.export.to_onnx.memory import MemoryAttention, MemoryEncoder
from wise_edge.export.to_onnx.sam2 import MaskDecoder
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.export.to_onnx.verify import compare_arrays
from wise_edge.native.onnxruntime_session import OnnxSession
from wise_edge.policy.graph_io import Batch
from wise_edge.sam.video.checkpoint import load_video
from wise_edge.sam.video.memory import MOST_OBJECTS, NO_OBJECT, MemorySpec

OBJECTS = ("object_scores", "object_pointers")
"""What the decoder returns in addition: float32 [P], logits, and float32 [P, 4, C]."""
REMEMBER = ("image_embeddings", "low_res_masks", "object_scores", "is_prompted")
RECALL = ("image_embeddings", "memory", "memory_age", "pointers", "pointer_age")
"""Inputs of the memory's encoder and of its attention; see `to_onnx.memory`."""
_ATTENTION, _ENCODER = MEMORY_GRAPHS
_TOKENS = slice(2, None)  # of the mask decoder's, behind those of object score and IoU, those of the masks


class VideoGraphs:
    """The memory of a checkpoint as graphs.

    Args:
        checkpoint: what `load_video` loads.
        spec: how much it remembers.

    Attributes:
        decoder: see `PointingDecoder`.
    """

    def __init__(self, checkpoint: Path, spec: MemorySpec) -> None:
        self._spec = spec
        self._model = load_video(checkpoint)
        self.decoder = PointingDecoder(self._model)
        self._encoder = MemoryEncoder(self._model)
        self._attention = MemoryAttention(self._model)

    def export(self, embeddings: Tensor, out: Path) -> None:
        """Write the memory's graphs into a bundle's folder; `embeddings` [1, C, G, G] give their sizes."""
        objects = torch.export.Dim("objects", min=1, max=MOST_OBJECTS)
        # Two objects, since torch.export takes a size of 1 for one that never changes.
        given = self._remembering(embeddings, torch.zeros(2, 1, *self._model.prompt_encoder.mask_input_size))
        with torch.no_grad():
            memory = self._encoder(*given)
        recalling = (embeddings, *self._stack([memory[:1]] * 2, [self._model.no_object_pointer.detach()] * 2))
        for role, module, arrays, names, output in (
            (_ENCODER, self._encoder, given, REMEMBER, "memory"),
            (_ATTENTION, self._attention, recalling, RECALL, "conditioned_embeddings"),
        ):
            dynamic = ({}, *[{0: objects}] * (len(arrays) - 1))
            export_onnx(module, arrays, [*names], [output], out / f"{role}.onnx", dynamic=dynamic)

    def inputs(self, prompts: Sequence[Batch]) -> dict[str, list[Batch]]:
        """Return typical inputs of the memory's graphs, by role.

        Args:
            prompts: typical inputs of the decoder.
        """
        found: dict[str, list[Batch]] = {role: [] for role in MEMORY_GRAPHS}
        for each in prompts:
            with torch.no_grad():
                masks, _, _, pointers = self.decoder(*(torch.from_numpy(array) for array in each.values()))
                remembering = self._remembering(torch.from_numpy(each["image_embeddings"]), masks[:, :1])
                memory = self._encoder(*remembering)
            recalling = (remembering[0], *self._stack([memory], [pointers[:, 0]]))
            for role, names, arrays in ((_ENCODER, REMEMBER, remembering), (_ATTENTION, RECALL, recalling)):
                found[role].append({name: array.numpy() for name, array in zip(names, arrays, strict=True)})
        return found

    def verify(self, graphs: SegmenterGraphs, out: Path) -> Iterator[Figure]:
        """Compare the graphs with transformers' own forward passes, of objects that remember differently much."""
        generator = torch.Generator().manual_seed(0)
        side, low = graphs.spec.input_size, graphs.spec.low_res_size
        with torch.no_grad():
            features = graphs.embed(torch.randn(1, 3, side, side, generator=generator))
            yield self._verify_decoder(graphs, features, out)
            masks = 10 * torch.randn(3, 1, low, low, generator=generator)
            given = self._remembering(features[0], masks)
            memory = self._stock_memory(*given)
            got = OnnxSession(out / f"{_ENCODER}.onnx").run(_named(REMEMBER, given))["memory"]
            yield compare_arrays(f"{_ENCODER}, 3 objects", [(got, memory)])
            remembered = [memory[row : row + 1].expand(count, -1, -1) for row, count in enumerate((1, 3, 64))]
            pointers = [torch.randn(count, self._model.hidden_dim, generator=generator) for count in (1, 4, 64)]
            recalling = (features[0], *self._stack(remembered, pointers))
            expected = torch.cat([self._stock_attention(recalling, row) for row in range(3)])
            got = OnnxSession(out / f"{_ATTENTION}.onnx").run(_named(RECALL, recalling))["conditioned_embeddings"]
            yield compare_arrays(f"{_ATTENTION}, 1, 3 and {self._spec.frames} frames", [(got, expected)])

    def _verify_decoder(self, graphs: SegmenterGraphs, features: tuple[Tensor, ...], out: Path) -> Figure:
        """Compare what is followed without a prompt in images that differ."""
        images = [features[0], 1.1 * features[0]]
        prompt = (torch.zeros(2, 1, 2), -torch.ones(2, 1), torch.zeros(2, 1, *[graphs.spec.low_res_size] * 2))
        shared = _named(graphs.features, (torch.cat(images), *features[1:]))
        given = _named(("point_coords", "point_labels", "mask_input", "has_mask_input"), (*prompt, torch.zeros(2)))
        got = OnnxSession(out / "sam.decoder.onnx").run(shared | given)
        visible, pointers = [], []
        for image in images:
            stock = [
                self._model._single_frame_forward(image_embeddings=[*features[1:], image], multimask_output=many)
                for many in (False, True)
            ]
            visible.append(stock[0].object_score_logits.reshape(1))
            best = 1 + int(stock[1].iou_scores.argmax())
            pointers += [stock[0].object_pointer.reshape(1, -1), stock[1].object_pointer.reshape(1, -1)]
            pointers[-1] = (best, pointers[-1])
        rows = [got["object_pointers"][row, [0, pointers[2 * row + 1][0]]] for row in range(2)]
        expected = [torch.cat([pointers[2 * row], pointers[2 * row + 1][1]]) for row in range(2)]
        pairs = [(got["object_scores"], torch.cat(visible)), *zip(rows, expected, strict=True)]
        return compare_arrays("sam.decoder, 2 followed objects", pairs)

    def _remembering(self, embeddings: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Return inputs of the memory's encoder: the second object is hidden, and the first has a prompt."""
        count = len(masks)
        scores, prompted = torch.ones(count), torch.zeros(count)
        scores[1::3], prompted[::3] = -1.0, 1.0
        return embeddings, masks, scores, prompted

    def _stack(self, memories: Sequence[Tensor], pointers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what objects remember in arrays of the attention's size; a single object fills all places."""
        spec = self._spec
        memory_ages = [0] * spec.prompted_frames + list(range(1, spec.recent_frames + 1))
        pointer_ages = [40 + place for place in range(spec.prompted_frames)] + list(range(1, spec.recent_pointers + 1))
        made: list[Tensor] = []
        for listed, ages in ((memories, memory_ages), (pointers, pointer_ages)):
            values = torch.zeros(len(listed), len(ages), *listed[0].shape[1:])
            age = torch.full((len(listed), len(ages)), -1)
            for row, each in enumerate(listed):
                repeated = each if len(each) > 1 else each.expand(len(ages) if len(listed) == 1 else 1, *each.shape[1:])
                count = min(len(repeated), len(ages))
                values[row, :count], age[row, :count] = repeated[:count], torch.tensor(ages[:count])
            made += [values, age]
        return tuple(made)

    def _stock_memory(self, embeddings: Tensor, masks: Tensor, scores: Tensor, prompted: Tensor) -> Tensor:
        """Return what transformers remembers, one object at a time, before it rounds to bfloat16."""
        model, config, found = self._model, self._model.config, []
        plain = embeddings - model.no_memory_embedding.reshape(1, -1, 1, 1)
        for mask, score, certain in zip(masks, scores, prompted, strict=True):
            mask = mask[None] if score > 0 else torch.full_like(mask[None], NO_OBJECT)
            large = functional.interpolate(mask, [4 * side for side in mask.shape[2:]], mode="bilinear")
            large = (large > 0).float() if certain else large.sigmoid()
            scaled = large * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
            memory, places = model.memory_encoder(plain, scaled)
            if score <= 0 and model.occlusion_spatial_embedding_parameter is not None:
                memory = memory + model.occlusion_spatial_embedding_parameter[..., None, None]
            perceives = hasattr(model, "spatial_perceiver")
            found.append(model.spatial_perceiver(memory, places)[0] if perceives else memory.flatten(2).transpose(1, 2))
        return torch.cat(found)

    def _stock_attention(self, arrays: tuple[Tensor, ...], row: int) -> Tensor:
        """Return what transformers sees with the memory of one object of the attention's inputs."""
        embeddings, memory, ages, pointers, pointer_ages = arrays
        model = self._model
        plain = (embeddings - model.no_memory_embedding.reshape(1, -1, 1, 1)).flatten(2).permute(2, 0, 1)
        image = model.vision_encoder.neck.position_encoding(embeddings.shape, "cpu", torch.float32)
        places = model.memory_encoder.position_encoding(
            (1, memory.shape[-1], *embeddings.shape[2:]), "cpu", torch.float32
        )
        perceives = hasattr(model, "spatial_perceiver")
        listed = [
            (int(age), {"maskmem_features": values[None] if perceives else values[:, None]})
            for age, values in zip(ages[row], memory[row], strict=True)
            if age >= 0
        ]
        for _, each in listed:
            each["maskmem_pos_enc"] = (
                model.spatial_perceiver(torch.zeros_like(places), places)[1]
                if perceives
                else places.flatten(2).permute(2, 0, 1)
            )
        memories, positions = model._build_memory_attention_inputs(listed, "cpu")
        kept = [place for place, age in enumerate(pointer_ages[row]) if age >= 0]
        tokens, token_positions = model._process_object_pointers(
            [int(pointer_ages[row, place]) for place in kept],
            [pointers[row, place][None] for place in kept],
            model.config.max_object_pointers_in_encoder,
            1,
            model.hidden_dim,
            "cpu",
        )
        counted: dict[str, Any] = {"num_spatial_memory_tokens": len(memories)} if perceives else {}
        seen = model.memory_attention(
            current_vision_features=plain,
            current_vision_position_embeddings=image.flatten(2).permute(2, 0, 1),
            memory=torch.cat([*memories, tokens]),
            memory_posision_embeddings=torch.cat([*positions, token_positions]),
            num_object_pointer_tokens=len(tokens),
            **counted,
        )
        return torch.as_tensor(seen.squeeze(1).transpose(1, 2).reshape(embeddings.shape))


def _named(names: Sequence[str], arrays: Sequence[Tensor]) -> dict[str, Any]:
    return {name: np.ascontiguousarray(array.numpy()) for name, array in zip(names, arrays, strict=True)}


class PointingDecoder(MaskDecoder):
    """The mask decoder of a video model, which also says whether the object is there, and describes it.

    Maps the inputs of `MaskDecoder` to its outputs, object_scores float32 [P] (logits) and object_pointers float32
    [P, 4, C], one for each mask. The image's embeddings may differ for each prompt.

    Args:
        model: transformers' `Sam2VideoModel` or `EdgeTamVideoModel`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.mask_decoder._modules = dict(self.mask_decoder._modules)  # a copy shares them with the model
        self.mask_decoder.transformer = _Recording(model.mask_decoder.transformer)
        self.to_pointer = model.object_pointer_proj
        self.no_pointer = model.no_object_pointer

    def finish(self, masks: Tensor, scores: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        """Return masks, scores, object scores and pointers."""
        tokens = self.mask_decoder.transformer.kept.pop()[:, 0, _TOKENS][:, : scores.shape[1]]
        pointers = torch.where(visible[..., None] > 0, self.to_pointer(tokens), self.no_pointer)
        return masks, scores, visible[:, 0], pointers


class _Recording(nn.Module):
    """Keeps the tokens that a transformer returns, of which the mask decoder returns only one.

    The list has one owner: torch.export puts a copy in its place, and another reference would keep the old one.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.stock = stock
        self.kept: list[Tensor] = []

    def forward(self, **arrays: Any) -> Any:
        """Return what it returns."""
        returned = self.stock(**arrays)
        self.kept.append(returned[0])
        return returned
