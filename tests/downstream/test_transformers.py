"""Results with Hugging Face transformers' own API."""

import copy
import subprocess
import sys

import pytest
import torch

import fxprune

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IDS = torch.arange(24).reshape(2, 12) + 3
WHOLE = fxprune.Policy(heads="whole")


def llama(**sizes):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **sizes)).eval()


def compressed(model, inputs=None, **options):
    inputs = {"input_ids": IDS, "use_cache": False} if inputs is None else inputs
    return fxprune.compress(model, inputs, form="module", policy=WHOLE, **{"channels": 0.5, "uniform": True, **options})


@pytest.fixture(scope="module")
def small():
    return compressed(llama(num_key_value_heads=2, attn_implementation="eager"))


def test_the_configuration_is_found_and_loads_in_plain_transformers(small, tmp_path):
    assert type(small) is transformers.LlamaForCausalLM
    said = {name: getattr(small.config, name) for name in (
        "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")}
    assert said == {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1,
                    "head_dim": 16}
    small.save_pretrained(tmp_path)
    torch.save(small(IDS).logits.detach(), tmp_path / "logits.pt")
    code = ("import sys; sys.modules['fxprune'] = None\nimport torch, transformers\n"
            f"net = transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}, attn_implementation='eager')\n"
            "ids = torch.arange(24).reshape(2, 12) + 3\n"
            f"print(torch.equal(net(ids).logits, torch.load({str(tmp_path / 'logits.pt')!r})))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_generation_with_and_without_a_cache(small):
    cached, uncached = (small.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=6, do_sample=False,
                                       use_cache=cache) for cache in (True, False))
    assert cached.shape == (2, 18) and torch.equal(cached, uncached)


def test_what_no_configuration_says_is_refused(tmp_path):
    small = compressed(llama(num_key_value_heads=4), uniform=False, ignore="model.layers.0.*")
    with pytest.raises(fxprune.UnsupportedError, match=r"none of LlamaConfig says this result: .*layers.* has shape .*"
                                                       r"fxprune\.save\(small, folder\)"):
        small.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    # The scale would be another one, at the same shapes.
    bert = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).eval()
    dims = fxprune.compress(bert, {"input_ids": IDS}, form="module", channels=0.5, uniform=True)
    with pytest.raises(fxprune.UnsupportedError, match="scaling is 0.25 here"):
        dims.save_pretrained(tmp_path)


@pytest.mark.parametrize("family, numbers", [
    ("Bert", {"num_attention_heads": 2, "attention_head_size": 16, "all_head_size": 32}),
    ("Roberta", {"num_attention_heads": 2, "attention_head_size": 16, "all_head_size": 32})])
def test_numbers_that_no_captured_call_reads_follow_the_configuration(family, numbers, tmp_path):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES)
    model = getattr(transformers, f"{family}ForMaskedLM")(config).eval()
    small = compressed(model, {"input_ids": IDS})
    layer = next(m for m in small.modules() if type(m).__name__.endswith("SelfAttention"))
    assert {name: getattr(layer, name) for name in numbers} == numbers
    small.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, small(IDS).logits)


@pytest.mark.slow
def test_a_pipeline(small):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{k}": k for k in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w2")
    pipe = transformers.pipeline("text-generation", model=small, tokenizer=tokenizer)
    said = pipe("w5 w6 w7", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert said.startswith("w5 w6 w7") and said.count("w") == 7


@pytest.mark.slow
def test_a_trainer_with_labels(small, tmp_path):
    data = [{"input_ids": IDS[0], "labels": IDS[0]} for _ in range(8)]
    options = transformers.TrainingArguments(str(tmp_path), max_steps=4, per_device_train_batch_size=4, report_to=[],
                                             learning_rate=1e-2, save_strategy="no", use_cpu=True, disable_tqdm=True)
    model = copy.deepcopy(small)
    before = model(IDS, labels=IDS).loss.item()
    transformers.Trainer(model, options, train_dataset=data).train()
    assert model.eval()(IDS, labels=IDS).loss.item() < before


@pytest.mark.slow
def test_low_rank_adapters(small):
    peft = pytest.importorskip("peft")
    wanted = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(copy.deepcopy(small), wanted)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_" in name)
    assert model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3).shape == (2, 15)
