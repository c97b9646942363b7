"""Config of WISE: reinforcement learning (GRPO) of a policy that explains itself twice, arXiv 2604.02040."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from wise_edge.datasets import DRAWN, FILES
from wise_edge.policy.answers.form import BOX_POINT_LIST, BOX_POINTS
from wise_edge.ranges import Checked, Count, Index, Name, NotNegative, OneOf, Positive, Range, Share, Side, Width
from wise_edge.training.common.config import Batch, Rate, Seed, Threads
from wise_edge.training.wise.reward_config import ORDERS, RewardConfig

DTYPES = ("float32", "bfloat16")
FORMS = {form.name: form for form in (BOX_POINTS, BOX_POINT_LIST)}
"""Forms of answers that can be trained: those between `<answer>` tags."""
VLLM_MODES = ("off", "colocate", "server")
_Tokens = Annotated[int, Range(1, 10**6)]
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")


@dataclass(frozen=True)
class DataConfig(Checked):
    """Labeled queries, as `wise_edge.datasets.open_dataset` reads them."""

    split: Name
    """Split of the data; it has no default, so that no policy is validated on its training data by oversight."""
    name: Name = "scenes"
    """Dataset: one of `wise_edge.datasets.NAMES`."""
    path: Name | None = None
    """Its folder, or the file of `coco` and `table`; not needed for scenes."""
    first: Index = 0
    """Index of the first sample to use."""
    samples: Count | None = None
    """Number of samples to use; None: all. Required for scenes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in DRAWN and self.samples is None:
            raise ValueError("samples: scenes are endless; set the number to use")
        if self.name not in DRAWN and self.path is None:
            raise ValueError(
                f"path: {self.name} is read from files; name its {'file' if self.name in FILES else 'folder'}"
            )


@dataclass(frozen=True)
class LoraOptions(Checked):
    """A low-rank adapter instead of all parameters (https://arxiv.org/abs/2106.09685)."""

    rank: Width = 64
    """Rank of the update of each matrix."""
    alpha: Positive = 128.0
    """The update is scaled by alpha / rank."""
    dropout: Share = 0.0
    """Share of the adapter's inputs that is dropped."""
    targets: Annotated[tuple[Name, ...], Range(1, 1000)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the adapted matrices, in the language model only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout == 1:
            raise ValueError("dropout: must be below 1")


@dataclass(frozen=True)
class WarmStartConfig(Checked):
    """Supervised steps before GRPO that teach the form of the completions."""

    steps: Count
    """Optimizer steps."""
    data: Name = "scenes"
    """scenes, or a JSON-lines file of `image` (path relative to the file), `query` and `completion`."""
    learning_rate: Rate = 2e-5
    """Peak rate of AdamW; linear decay."""
    batch_size: Batch = 16
    """Completions per step, over all processes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data != "scenes" and not self.data.endswith(".jsonl"):
            raise ValueError("data: is 'scenes' or a .jsonl file")


@dataclass(frozen=True)
class ValidationConfig(Checked):
    """Greedy decoding of held-out data during training, which selects the best policy."""

    every: Count = 25
    """Steps between validations; there is also one before the first step and one after the last."""
    data: DataConfig = DataConfig("validation", samples=200)
    """Data to decode."""
    variants: Annotated[tuple[Name, ...], Range(1, 100)] = ("wise-infer", "wise-s")
    """Prompt variants to decode; their mean selects the best policy."""
    sam: Name | None = None
    """`embedded` or the folder of a SAM checkpoint that turns answers into masks; None: compare boxes."""
    tolerance: Share = 0.005
    """A cIoU this far below the highest one counts as equal; of equal policies the one with fewer tokens is kept."""
    batch_size: Batch = 32
    """Completions decoded together on each process."""
    max_tokens: _Tokens = 512
    """Longest completion, tokens."""


@dataclass(frozen=True)
class WiseConfig(Checked):
    """GRPO with the rewards of WISE. The defaults follow the reference, see the fields."""

    changeable: ClassVar[frozenset[str]] = frozenset(
        {
            "steps",
            "rollouts_per_device",
            "rollouts_at_once",
            "validation.batch_size",
            "vllm_memory_share",
            "vllm_server",
            "threads",
            "checkpoint_every",
            "checkpoints_kept",
            "samples_every",
            "report_to",
        }
    )
    """Dotted keys that a resumed run may change."""
    steps: Count
    """Optimizer steps, each on-policy: its rollouts come from the weights that it updates."""
    stage: Annotated[str, OneOf(("wise",))] = "wise"
    """Selects this config in a recipe."""
    model: Name = "embedded"
    """`embedded`, the folder of a checkpoint, or a name on the Hugging Face hub."""
    input_size: Side | None = None
    """Side of the square that images are stretched to, px; None: the processor's size, or else 840."""
    coordinates: Name | None = None
    """What the numbers of answers count: `pixels` of the square or `per-mille` of its sides, `,yx` if rows come first;
    None: what the model knows."""
    order: Annotated[str, OneOf(ORDERS)] = "concise-first"
    """Order of the parts of a completion; the other orders are for ablations."""
    form: Annotated[str, OneOf(FORMS)] = BOX_POINTS.name
    """How answers are written: box-points, one object, or box-point-list, any number of objects or none."""
    data: DataConfig = DataConfig("train", samples=100_000)
    """Training data."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """Rewards and their weights."""
    warm_start: WarmStartConfig | None = None
    """Supervised steps before GRPO, which starts from the merged result and is regularized toward it."""
    validation: ValidationConfig = ValidationConfig()
    """Held-out data and the selection of the best policy."""
    lora: LoraOptions | None = None
    """A low-rank adapter; None: train all parameters."""
    load_in_4bit: bool = False
    """Keep the frozen weights in 4 bits (QLoRA, https://arxiv.org/abs/2305.14314); needs `lora` and bitsandbytes."""
    dtype: Annotated[str, OneOf(DTYPES)] = "bfloat16"
    """Type of the weights. An adapter is always float32; fully trained weights must be, because bfloat16 rounds such
    small updates away."""
    bf16: bool = True
    """Multiply in bfloat16, whatever the type of the weights; this includes the sentence encoder."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: about a third slower, with far less memory."""
    processes: Batch = 1
    """Number of processes of the run, over all machines; they share the batch sizes below."""
    prompts_per_step: Batch = 16
    """Prompts per step, over all processes."""
    rollouts: Annotated[int, Range(2, 65_536)] = 8
    """Completions per prompt, whose rewards are compared with one another."""
    rollouts_per_device: Batch = 4
    """Completions in one forward and backward pass on each process; lower it if memory runs out."""
    rollouts_at_once: Batch | None = None
    """Completions that each process generates at a time; None: all of a step. Lower it if memory runs out there."""
    max_completion_tokens: _Tokens = 1300
    """Longest completion, tokens; a longer one is cut off and excluded from the loss."""
    temperature: Positive = 1.0
    """Temperature of sampling."""
    learning_rate: Rate = 1e-6
    """Peak rate of AdamW; the reference's, for all parameters. Adapters need at least 10 times as much."""
    schedule: Annotated[str, OneOf(SCHEDULES)] = "constant"
    """Schedule of the learning rate."""
    warmup_steps: Index = 0
    """Steps of linear warm-up."""
    weight_decay: NotNegative = 0.01
    """Decoupled decay."""
    clip_norm: Positive = 1.0
    """Largest norm of the complete gradient."""
    kl_weight: NotNegative = 5e-3
    """Weight of the divergence (k3 estimator) from the policy at the start."""
    vllm: Annotated[str, OneOf(VLLM_MODES)] = "off"
    """Generate rollouts with vLLM inside the training processes (colocate) or on a server (server); without vLLM,
    transformers generates them."""
    vllm_memory_share: Share = 0.3
    """Share of a GPU's memory for colocated vLLM."""
    vllm_server: Name = "http://localhost:8000"
    """Address of `trl vllm-serve`."""
    seed: Seed = 0
    """Seed of sampling, of the order of the data and of new adapters."""
    threads: Threads | None = None
    """Torch threads; None: torch decides."""
    checkpoint_every: Count = 25
    """Steps between checkpoints."""
    checkpoints_kept: Count = 2
    """Number of newest checkpoints to keep."""
    samples_every: Count = 25
    """Steps between tables of sample completions."""
    report_to: tuple[str, ...] = field(default=("tensorboard", "trackio"))
    """Trackers to report to, if they are installed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.load_in_4bit and self.lora is None:
            raise ValueError("load_in_4bit: 4-bit weights cannot be trained; set lora too")
        if self.lora is None and self.dtype != "float32":
            raise ValueError("dtype: without lora, bfloat16 weights round updates away; use float32 and bf16")
        at_once = self.rollouts_at_once
        if at_once is not None and (
            self.batch_size % (self.processes * at_once)
            or at_once % self.rollouts_per_device
            or (self.processes * at_once) % self.rollouts
        ):
            raise ValueError(
                f"rollouts_at_once: must be a multiple of rollouts_per_device = {self.rollouts_per_device}, and on all "
                f"processes together a multiple of rollouts = {self.rollouts} that divides {self.batch_size}"
            )
        if self.batch_size % (self.processes * self.rollouts_per_device):
            raise ValueError(
                f"prompts_per_step x rollouts = {self.batch_size} is not a multiple of processes x rollouts_per_device"
                f" = {self.processes * self.rollouts_per_device}"
            )

    @property
    def batch_size(self) -> int:
        """Completions per step."""
        return self.prompts_per_step * self.rollouts

    @property
    def steps_per_generation(self) -> int:
        """Backward passes of each process between two generations of completions."""
        return (self.rollouts_at_once or self.batch_size // self.processes) // self.rollouts_per_device

    @property
    def accumulation_steps(self) -> int:
        """Backward passes of each process per step."""
        return self.batch_size // (self.processes * self.rollouts_per_device)
