#!/usr/bin/env bash
# transformers 5.24.0: the mask decoder of SamHQModel throws away what its transformer made of the image, and goes on with
# the embedding from before, with rows and columns exchanged. SamModel's does not.
#
# Source: https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/models/sam_hq/modeling_sam_hq.py:
# `point_embedding, iou_token_out = self.transformer(...)` in SamHQMaskDecoder, where SamMaskDecoder has
# `point_embedding, image_embeddings = ...`. The authors' decoder uses both outputs
# (https://github.com/SysCV/sam-hq/blob/main/segment_anything/modeling/mask_decoder_hq.py).
#
# Scores are right, since they come from the tokens, and random weights show nothing: only the masks of trained ones tell.
# Here hooks compare what the decoder enlarges to masks with what went into its transformer and came out.
#
# Seen:
#   SamModel     enlarges the transformer's output: True   its input with rows and columns exchanged: False
#   SamHQModel   enlarges the transformer's output: False  its input with rows and columns exchanged: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.14.1

"$work/venv/bin/python" - <<'PY'
import sys

import torch
import transformers


def compare(name):
    """Whether what is enlarged is the output of the decoder's transformer, or its input transposed."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
        "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 16,
    }
    decoder = {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    further = {"vit_dim": 32} if name == "SamHQ" else {}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
        mask_decoder_config={**decoder, **further},
    )
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    inputs = {"pixel_values": torch.randn(1, 3, 64, 64), "input_boxes": torch.tensor([[[8.0, 8.0, 40.0, 40.0]]])}
    seen = {}
    decoder = model.mask_decoder
    decoder.transformer.register_forward_hook(
        lambda _, args, kwargs, outputs: seen.update(given=kwargs["image_embeddings"], found=outputs[1]), with_kwargs=True
    )
    decoder.upscale_conv1.register_forward_pre_hook(lambda _, args: seen.update(enlarged=args[0]))
    with torch.no_grad():
        model(**inputs)
    found = seen["found"].transpose(2, 3).reshape(seen["enlarged"].shape)
    is_output, is_input = (torch.equal(seen["enlarged"], each) for each in (found, seen["given"].transpose(2, 3)))
    ends = f"{is_output}".ljust(5) + f"  its input with rows and columns exchanged: {is_input}"
    print(f"{name}Model".ljust(12), f"enlarges the transformer's output: {ends}", flush=True)
    return is_output, is_input


if [compare("Sam"), compare("SamHQ")] != [(True, False), (False, True)]:
    sys.exit("changed: expected SamHQModel alone to enlarge the input of its transformer")
PY
