"""Config of WISE: reinforcement learning (GRPO) of a policy that thinks twice, arXiv 2604.02040."""

from __future__ import annotations

from dataclasses import dataclass, field

from wise_edge.policy.prompts import VARIANTS
from wise_edge.training.wise.reward_config import ORDERS, RewardConfig

DTYPES = ("float32", "bfloat16")
VLLM_MODES = ("off", "colocate", "server")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")


@dataclass(frozen=True)
class DataConfig:
    """Labeled queries, as `wise_edge.datasets.open_dataset` reads them."""

    split: str
    """Split of the data; without a default, so that nothing is validated on what it was trained on by oversight."""
    name: str = "scenes"
    """Form of the data: scenes, refcocog-2k, refcoco, refcoco+, refcocog or reasonseg."""
    path: str | None = None
    """Its folder; scenes need none."""
    first: int = 0
    """Index of the first sample that is taken."""
    samples: int | None = None
    """How many are taken; None: all. Scenes need a number."""

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("first: must not be negative")
        if self.samples is not None and self.samples < 1:
            raise ValueError("samples: must be at least 1")
        if self.name == "scenes" and self.samples is None:
            raise ValueError("samples: scenes are endless; say how many to take")


@dataclass(frozen=True)
class LoraOptions:
    """A low-rank adapter instead of all parameters (https://arxiv.org/abs/2106.09685)."""

    rank: int = 64
    """Rank of the update of each matrix."""
    alpha: float = 128.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is dropped."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the adapted matrices; only those of the language model are."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError("rank: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout: must be from 0 to below 1")


@dataclass(frozen=True)
class WarmStartConfig:
    """Supervised steps before GRPO that teach the form of the completions."""

    steps: int
    """Optimizer steps."""
    data: str = "scenes"
    """scenes, or a JSON-lines file of `image` (path beside the file), `query` and `completion`."""
    learning_rate: float = 2e-5
    """Peak rate of AdamW; linear decay."""
    batch_size: int = 16
    """Completions a step, over all processes."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError("steps: and batch_size: must be at least 1")
        if self.data != "scenes" and not self.data.endswith(".jsonl"):
            raise ValueError("data: is 'scenes' or a .jsonl file")


@dataclass(frozen=True)
class ValidationConfig:
    """Greedy decoding of held-out data during training; the best policy by it is kept."""

    every: int = 25
    """Steps between validations; there is one before the first step and one after the last."""
    data: DataConfig = DataConfig("validation", samples=200)
    """What is decoded."""
    variants: tuple[str, ...] = ("wise-infer", "wise-s")
    """Prompt variants that are decoded; the best policy is chosen by their mean."""
    sam: str | None = None
    """`embedded` or the folder of a SAM checkpoint that turns answers into masks; None: boxes are compared."""
    tolerance: float = 0.005
    """cIoU this far below the highest one counts as equal; among equals the policy of fewer tokens is kept."""
    batch_size: int = 32
    """Completions that are decoded together on each process."""
    max_tokens: int = 512
    """Longest completion, tokens."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.batch_size < 1 or self.max_tokens < 1:
            raise ValueError("every:, batch_size: and max_tokens: must be at least 1")
        if not self.variants or not set(self.variants) <= set(VARIANTS):
            raise ValueError(f"variants: choose from {', '.join(VARIANTS)}")


@dataclass(frozen=True)
class WiseConfig:
    """GRPO with the rewards of WISE. The defaults follow the reference, see the fields."""

    steps: int
    """Optimizer steps; each is on-policy: its rollouts come from the weights it updates."""
    stage: str = "wise"
    """Chooses this config in a recipe."""
    model: str = "embedded"
    """`embedded`, the folder of a checkpoint, or a name of the Hugging Face hub."""
    input_size: int | None = None
    """Side of the square that images are stretched to, px; None: what the processor asks for, else 840."""
    order: str = "concise-first"
    """Order of the parts of a completion; the others are for ablation."""
    data: DataConfig = DataConfig("train", samples=100_000)
    """What is trained on."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """Rewards and their weights."""
    warm_start: WarmStartConfig | None = None
    """Supervised steps before; their adapter is merged, and GRPO starts from, and is held to, the result."""
    validation: ValidationConfig = ValidationConfig()
    """Held-out data and the choice of the best policy."""
    lora: LoraOptions | None = None
    """A low-rank adapter; None: all parameters are trained."""
    load_in_4bit: bool = False
    """Keep the frozen weights in 4 bits (QLoRA, https://arxiv.org/abs/2305.14314); needs `lora` and bitsandbytes."""
    dtype: str = "bfloat16"
    """Of the weights. An adapter itself is float32; trained weights must be, or updates this small are rounded away."""
    bf16: bool = True
    """Multiply in bfloat16, whatever the weights are; the sentence encoder too."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: slower by about a third, far less memory."""
    processes: int = 1
    """Processes that the run must have, over all machines; the batch sizes below are shared out among them."""
    prompts_per_step: int = 16
    """Prompts a step, over all processes."""
    rollouts: int = 8
    """Completions of each prompt; their rewards are compared with one another."""
    rollouts_per_device: int = 4
    """Completions in one forward and backward pass on each process; lower it when memory runs out."""
    rollouts_at_once: int | None = None
    """Completions that each process writes at a time; None: all of a step. Lower it when memory runs out there."""
    max_completion_tokens: int = 1300
    """Longest completion; a longer one is cut and left out of the loss."""
    temperature: float = 1.0
    """Of sampling."""
    learning_rate: float = 1e-6
    """Peak rate of AdamW; the reference's, for all parameters. Adapters want 10 times as much or more."""
    schedule: str = "constant"
    """Of the learning rate."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """Decoupled decay."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    kl_weight: float = 5e-3
    """Weight of the divergence (k3 estimator) from the start policy."""
    vllm: str = "off"
    """Roll out with vLLM inside the training processes (colocate) or from a server; where it is not installed,
    transformers does it."""
    vllm_memory_share: float = 0.3
    """Share of a GPU's memory that colocated vLLM takes."""
    vllm_server: str = "http://localhost:8000"
    """Address of `trl vllm-serve`."""
    seed: int = 0
    """Of sampling, of the order of the data and of new adapters."""
    threads: int | None = None
    """Torch threads; None: torch decides."""
    checkpoint_every: int = 25
    """Steps between checkpoints."""
    checkpoints_kept: int = 2
    """Newest checkpoints that are kept."""
    samples_every: int = 25
    """Steps between tables of sample completions."""
    report_to: tuple[str, ...] = field(default=("tensorboard", "trackio"))
    """Trackers that get the curves where they are installed."""

    def __post_init__(self) -> None:
        for name in ("steps", "processes", "prompts_per_step", "rollouts_per_device", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
        if self.rollouts < 2:
            raise ValueError("rollouts: at least 2 are compared with one another")
        for name, allowed in (("order", ORDERS), ("dtype", DTYPES), ("vllm", VLLM_MODES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: choose one of {', '.join(allowed)}")
        if self.load_in_4bit and self.lora is None:
            raise ValueError("load_in_4bit: weights of 4 bits cannot be trained; set lora too")
        if self.lora is None and self.dtype != "float32":
            raise ValueError(
                "dtype: where all parameters are trained, bfloat16 rounds updates away; use float32 and bf16"
            )
        at_once = self.rollouts_at_once
        if at_once is not None and (
            at_once < 1
            or self.batch_size % (self.processes * at_once)
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
        """Completions a step."""
        return self.prompts_per_step * self.rollouts

    @property
    def steps_per_generation(self) -> int:
        """Backward passes of each process between two times of writing completions."""
        return (self.rollouts_at_once or self.batch_size // self.processes) // self.rollouts_per_device

    @property
    def accumulation_steps(self) -> int:
        """Backward passes of each process in a step."""
        return self.batch_size // (self.processes * self.rollouts_per_device)
