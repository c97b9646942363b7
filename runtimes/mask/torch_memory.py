"""The memory of a segmenter on torch: transformers' video models, one session for each object.

A session for several objects rounds the masks of all of them where one has a prompt (transformers 5.24), and keeps
every frame of the video; ours are emptied as they grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from wise_edge.extras import require
from wise_edge.runtimes.base import MaskPrompt, RememberedMask
from wise_edge.runtimes.mask.objects import ObjectMemory
from wise_edge.sam.video.memory import MemorySpec

if TYPE_CHECKING:
    from wise_edge.runtimes.mask.torch_mask import Sam2Image, TorchSam2

_OBJECT = 0  # the index of the only object of a session
_PROMPTED, _FOLLOWED = "cond_frame_outputs", "non_cond_frame_outputs"


class TorchMemory(ObjectMemory["Sam2Image"]):
    """Follows objects with transformers' `Sam2VideoModel` or `EdgeTamVideoModel`.

    Args:
        mask: the segmenter, which encodes images.
        model: the video model of the same checkpoint, on the same device.
        spec: how much is remembered.
    """

    def __init__(self, mask: TorchSam2, model: Any, spec: MemorySpec) -> None:
        super().__init__()
        self._torch = require("torch", "export")
        self._mask = mask
        self._model = model
        self._spec = spec
        self._sessions: dict[int, Any] = {}

    def _start(self, encoded: Sam2Image, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        for number, prompt in prompts.items():
            session = self._sessions.setdefault(number, self._open())
            session.obj_id_to_idx(number)
            session.output_dict_per_obj[_OBJECT][_FOLLOWED].pop(self.time, None)
            session.frames_tracked_per_obj[_OBJECT].pop(self.time, None)
            points, labels = self._mask.label_points(encoded, prompt)
            session.add_point_inputs(_OBJECT, self.time, {"point_coords": points, "point_labels": labels})
            session.obj_with_new_inputs = [number]
        return self._find(encoded, list(prompts))

    def _find(self, encoded: Sam2Image, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        return {number: self._run(encoded, self._sessions[number]) for number in numbers}

    def _drop(self, number: int) -> None:
        del self._sessions[number]

    def _open(self) -> Any:
        """Return an empty session of the model's own class."""
        module = require(type(self._model).__module__, "export")
        kind = type(self._model).__name__.replace("Model", "InferenceSession")
        device = self._model.device
        return getattr(module, kind)(inference_device=device, inference_state_device=device, dtype=self._torch.float32)

    def _run(self, encoded: Sam2Image, session: Any) -> RememberedMask:
        start, torch, scores = perf_counter(), self._torch, []
        session.cache.cache_vision_features(self.time, self._features(encoded))
        hook = self._model.mask_decoder.register_forward_hook(lambda _, __, returned: scores.append(returned[1]))
        try:
            # A frame in itself tells the model that the video's length is not known; its pixels are not looked at.
            found = self._model(session, frame_idx=self.time, frame=torch.zeros(3, 1, 1))
        finally:
            hook.remove()
        session.processed_frames.clear()
        self._forget_old(session)
        logits = found.pred_masks.reshape(found.pred_masks.shape[-2:])
        mask = (self._mask.enlarge(encoded, logits[None, None])[0, 0] > 0).cpu().numpy()
        return RememberedMask(
            mask=mask,
            score=float(scores[-1].max()),
            logits=logits.cpu().numpy().astype(np.float32),
            decode_ms=(perf_counter() - start) * 1e3,
            object_score=float(found.object_score_logits),
        )

    def _features(self, encoded: Sam2Image) -> dict[str, Any]:
        """Return an image's features as the video model lists them, without the code for having no memory."""
        *finer, embedding = encoded.features
        plain = embedding - self._model.no_memory_embedding.detach().reshape(1, -1, 1, 1)
        place = self._model.vision_encoder.neck.position_encoding(plain.shape, plain.device, plain.dtype)
        flat = [each.flatten(2).permute(2, 0, 1) for each in (*finer, plain, place)]
        return {"vision_feats": flat[:-1], "vision_pos_embeds": flat[-1:]}

    def _forget_old(self, session: Any) -> None:
        """Keep what `ObjectBank` keeps."""
        outputs = session.output_dict_per_obj[_OBJECT]
        prompted, followed = outputs[_PROMPTED], outputs[_FOLLOWED]
        for when in sorted(prompted)[: -self._spec.prompted_frames]:
            followed[when] = prompted.pop(when)
        reach = max(self._spec.recent_frames, self._spec.recent_pointers)
        for kept in (followed, session.frames_tracked_per_obj[_OBJECT], session.point_inputs_per_obj[_OBJECT]):
            for when in [when for when in kept if when <= self.time - reach]:
                del kept[when]
        for each in (*prompted.values(), *followed.values()):
            each.pop("high_res_masks", None)
