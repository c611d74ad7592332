"""Ten tasks of people who go on using their packages: fxprune in both forms beside Torch-Pruning.

    pip install fxprune[bench]
    python -m benchmarks.ten_tasks [--only NAME ...] [--tools module graph torch-pruning]

Every task compresses a small model with random weights to half of its channels and goes on with it as its package's
users do. A row says for each tool the share of the parameters that is left, whether the result answers as the original
with the removed channels masked, and what of the next steps works, or the first error.

*As the masked original*: for fxprune, its own verification. Torch-Pruning gives no mask; since random weights are all
different, the kept indices are read off the values of what it left, the others are set to zero in a copy of the
original, and norms are taken over the kept channels. It is called as its own examples are: ``MagnitudePruner``, output
layers ignored, ``num_heads`` of the layers that make queries, keys and values, and afterwards the attention modules'
attributes set from ``pruner.num_heads``.
"""

import argparse
import copy
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fxprune
from benchmarks.masked_copy import masked_copy

IDS = torch.arange(24).reshape(2, 12) + 3
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TOOLS = ("module", "graph", "torch-pruning")
# Seconds for one task with one tool.
LIMIT = 180
Steps = dict[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Task:
    """A model, its example inputs, what its users do next, and what they tell the tools.

    Args:
        steps: named; each raises where it does not work.
        heads: names of the output layers, which Torch-Pruning is told to leave.
        options: for `fxprune.compress`.
        attention: the attributes that are layers which make queries, keys and values, and the one that counts heads.
    """

    model: nn.Module
    inputs: Any
    steps: Steps
    heads: tuple[str, ...]
    options: dict[str, Any]
    attention: tuple[tuple[str, ...], str] = ((), "")


def resnet50() -> Task:
    import torchvision
    from torchvision.models._utils import IntermediateLayerGetter

    return Task(torchvision.models.resnet50(num_classes=10), IMAGE, {
        "layer1[0].conv1": lambda m: m.layer1[0].conv1, "IntermediateLayerGetter": lambda m: IntermediateLayerGetter(
            m, {"layer4": "out"})(IMAGE), "torch.save, load": saved_and_loaded}, ("fc",), {})


def yolov8() -> Task:
    import numpy as np
    from ultralytics import YOLO

    image = np.zeros((64, 64, 3), np.uint8)

    def put_in(small: nn.Module) -> Any:
        yolo = YOLO("yolov8n.yaml", verbose=False)
        yolo.model = small
        return yolo

    def saved(small: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.pt"
            put_in(small).save(path)
            YOLO(path).predict(image, imgsz=64, verbose=False)

    model = YOLO("yolov8n.yaml", verbose=False).model
    heads = tuple(f"model.22.{branch}.{k}.2" for branch in ("cv2", "cv3") for k in range(3)) + ("model.22.dfl",)
    return Task(model, IMAGE[:1], {"predict": lambda m: put_in(m).predict(image, imgsz=64, verbose=False),
                                   "save, load, predict": saved}, heads, {})


def bert() -> Task:
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{k}": k for k in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[attr-defined]
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    model = t.BertForSequenceClassification(t.BertConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, num_labels=3,
        attn_implementation="eager"))
    return Task(model, {"input_ids": IDS}, {
        "pipeline": lambda m: t.pipeline("text-classification", model=m, tokenizer=tokenizer)("w5 w6 w7"),
        "labels": lambda m: m(IDS, labels=torch.tensor([0, 1])).loss.backward()}, ("classifier",), {},
        (("query", "key", "value"), "num_attention_heads"))


def llama() -> Task:
    import transformers as t

    model = t.LlamaForCausalLM(t.LlamaConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, attn_implementation="eager"))
    return Task(model, {"input_ids": IDS, "use_cache": False}, {
        "generate": generated, "save_pretrained, from_pretrained": reloaded}, ("lm_head",),
        {"uniform": True, "policy": fxprune.Policy(heads="whole")}, (("q_proj", "k_proj", "v_proj"), "num_heads"))


def sd_unet() -> Task:
    import diffusers

    net = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, norm_num_groups=8,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    words = torch.randn(2, 7, 32)

    def step(small: Any) -> None:
        decoder = diffusers.AutoencoderKL(block_out_channels=(16,), down_block_types=("DownEncoderBlock2D",),
                                          up_block_types=("UpDecoderBlock2D",), norm_num_groups=8, latent_channels=4)
        pipe = diffusers.StableDiffusionPipeline(
            vae=decoder, text_encoder=None, tokenizer=None, unet=small, scheduler=diffusers.DDIMScheduler(),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        pipe(prompt_embeds=words[:1], negative_prompt_embeds=words[1:], num_inference_steps=1, height=16, width=16)

    return Task(net, {"sample": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([1, 1]),
                      "encoder_hidden_states": words}, {"pipeline step": step}, ("conv_out",), {},
                (("to_q", "to_k", "to_v"), "heads"))


def t5() -> Task:
    import transformers as t

    model = t.T5ForConditionalGeneration(t.T5Config(
        vocab_size=64, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0))
    return Task(model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :5], "use_cache": False},
                {"generate": generated}, ("lm_head",), {}, (("q", "k", "v"), "n_heads"))


def swin() -> Task:
    import timm

    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1, 2, 1),
                              embed_dim=48, num_classes=10)
    return Task(model, IMAGE, {
        "forward_features": lambda m: m.forward_head(m.forward_features(IMAGE)),
        "forward_intermediates": lambda m: m.forward_intermediates(IMAGE),
        "reset_classifier": lambda m: (m.reset_classifier(7), m(IMAGE))}, ("head.fc",), {}, (("qkv",), "num_heads"))


def detr() -> Task:
    import transformers as t

    model = t.DetrForObjectDetection(t.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1],
                                       out_features=["stage2"]),
        d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=10))
    return Task(model, {"pixel_values": IMAGE}, {
        "logits, pred_boxes": lambda m: (m(IMAGE).logits, m(IMAGE).pred_boxes),
        "pixel_mask": lambda m: m(IMAGE, pixel_mask=torch.ones(2, 64, 64, dtype=torch.long))},
        ("class_labels_classifier", "bbox_predictor.layers.2"), {}, (("q_proj", "k_proj", "v_proj"), "num_heads"))


def vit() -> Task:
    import torchvision

    model = torchvision.models.VisionTransformer(64, 16, 3, 6, 96, 192, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # zero at first, so that all answers would be alike
    return Task(model, IMAGE, {"encoder": lambda m: len(m.encoder.layers), "torch.save, load": saved_and_loaded},
                ("heads.head",), {})


def clip() -> Task:
    import open_clip

    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg=open_clip.CLIPVisionCfg(layers=2, width=64, head_width=16, patch_size=8, image_size=32),
        text_cfg=open_clip.CLIPTextCfg(context_length=16, vocab_size=64, width=64, heads=4, layers=2))
    inputs = {"image": torch.randn(2, 3, 32, 32), "text": torch.randint(1, 64, (2, 16))}
    return Task(model, inputs, {"encode_image": lambda m: m.encode_image(inputs["image"]),
                                "encode_text": lambda m: m.encode_text(inputs["text"])}, (), {})


TASKS: dict[str, Callable[[], Task]] = {
    "ResNet-50": resnet50, "YOLOv8n": yolov8, "BERT": bert, "Llama": llama, "Stable Diffusion's U-Net": sd_unet,
    "T5": t5, "timm Swin": swin, "DETR": detr, "ViT": vit, "open_clip": clip}


def saved_and_loaded(small: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(small, Path(folder) / "small.pt")
        torch.load(Path(folder) / "small.pt", weights_only=False)(IMAGE)


def generated(small: Any) -> Any:
    return small.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4, do_sample=False)


def reloaded(small: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        again = type(small).from_pretrained(folder, attn_implementation="eager")
    if not torch.allclose(again(IDS).logits, small(IDS).logits, atol=1e-5):
        raise ValueError("what was loaded gives other logits")


def by_fxprune(task: Task, form: str) -> tuple[nn.Module, str]:
    small = fxprune.compress(task.model, task.inputs, channels=0.5, form=form, **task.options)
    return small, "yes" if fxprune.record(small).verification.ok else "no"


def by_torch_pruning(task: Task) -> tuple[nn.Module, str]:
    import torch_pruning as tp

    small = copy.deepcopy(task.model)
    names, number = task.attention
    owners = [m for m in small.modules() if any(isinstance(getattr(m, name, None), nn.Module) for name in names)]
    heads = {getattr(m, name): getattr(m, number, 0) or m.config.num_attention_heads for m in owners for name in names}
    heads |= {m: m.num_heads for m in small.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = tp.pruner.MagnitudePruner(
        small, task.inputs, importance=tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.5, num_heads=heads,
        prune_num_heads=bool(heads), prune_head_dims=not heads, head_pruning_ratio=0.5 if heads else 0.0,
        ignored_layers=[small.get_submodule(name) for name in task.heads], output_transform=summed)
    pruner.step()
    for owner in owners:
        first = getattr(owner, names[0])
        count, width = pruner.num_heads[first], first.out_features // (3 if len(names) == 1 else 1)
        for name, value in {number: count, "num_heads": count, "head_dim": width // count, "all_head_size": width,
                            "attention_head_size": width // count, "inner_dim": width, "attn_dim": width}.items():
            if hasattr(owner, name):
                setattr(owner, name, value)
    return small, as_masked(task, small)


def summed(output: Any) -> Any:
    """What Torch-Pruning follows back: a tensor that all outputs lead to."""
    return sum(tensor.sum() for tensor in _tensors(output) if tensor.is_floating_point())


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def called(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def as_masked(task: Task, small: nn.Module) -> str:
    with torch.no_grad():
        got = _tensors(called(small, task.inputs))[0]
        want = _tensors(called(masked_copy(task.model, small), task.inputs))[0]
    off = ((got - want).abs().max() / want.abs().max()).item() if got.shape == want.shape else float("inf")
    return "yes" if off < 1e-3 else f"no, off by {off:.2g}"


def row(name: str, tool: str) -> str:
    """What becomes of a task with a tool."""
    torch.manual_seed(0)
    task = TASKS[name]()
    randomise(task.model.eval())
    whole = sum(p.numel() for p in task.model.parameters())
    try:
        small, answers = by_torch_pruning(task) if tool == "torch-pruning" else by_fxprune(task, tool)
    except Exception as error:
        return f"– | – | {said(error)}"
    works = []
    for label, step in task.steps.items():
        try:
            step(copy.deepcopy(small).eval())
            works.append(label)
        except Exception as error:
            works.append(f"*{label}*: {said(error)}")
    return f"{sum(p.numel() for p in small.parameters()) / whole:.0%} | {answers} | {'; '.join(works)}"


def randomise(model: nn.Module) -> None:
    """No value twice, and none zero or one by accident."""
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() < 2:
                count = tensor.numel()
                tensor.copy_((tensor.mean() + (torch.randperm(count) + 1) / (10 * count)).reshape(tensor.shape))
        for name, tensor in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.add_(torch.rand_like(tensor) * 0.1)


def said(error: BaseException) -> str:
    text = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {text[:90]}" + ("…" if len(text) > 90 else "")


def once(name: str, tool: str) -> str:
    """`row` in a process of its own, which may not take longer than `LIMIT`."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: there.send(row(name, tool)))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(LIMIT) else f"– | – | not done after {LIMIT} s"
    except EOFError:
        found = "– | – | the process ended"
    process.kill()
    process.join()
    return str(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="*", default=list(TASKS))
    options.add_argument("--tools", nargs="*", default=TOOLS)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    print("| task | tool | parameters | as the masked original | next |\n|---|---|---|---|---|")
    for name in chosen.only:
        for tool in chosen.tools:
            label = tool if tool == "torch-pruning" else f"fxprune, {tool}"
            print(f"| {name} | {label} | {once(name, tool)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
