"""Results with diffusers' own pipelines."""

import pytest
import torch

import fxprune

diffusers = pytest.importorskip("diffusers")
SAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")).eval()


def compressed(**options):
    inputs = {"sample": SAMPLE, "timestep": torch.tensor([1, 1])}
    return fxprune.compress(unet(), inputs, form="module", **{"channels": 0.5, **options})


@pytest.fixture(scope="module")
def small():
    return compressed()


def test_steps_of_a_pipeline(small):
    """What the pipeline makes is what its scheduler makes of the result's own answers."""
    assert type(small) is diffusers.UNet2DModel and small.config.sample_size == 16 and small.dtype is torch.float32
    pipeline = diffusers.DDPMPipeline(small, diffusers.DDPMScheduler(num_train_timesteps=10))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(generator=torch.Generator().manual_seed(1), num_inference_steps=3, output_type="np").images
    draws, scheduler = torch.Generator().manual_seed(1), diffusers.DDPMScheduler(num_train_timesteps=10)
    scheduler.set_timesteps(3)
    image = torch.randn(1, 3, 16, 16, generator=draws)
    with torch.no_grad():
        for t in scheduler.timesteps:
            image = scheduler.step(small(image, t).sample, t, image, generator=draws).prev_sample
    wanted = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert images.shape == (1, 16, 16, 3) and abs(images - wanted).max() < 1e-5


def test_optional_arguments_and_training(small):
    out = small(SAMPLE, 3, return_dict=False)
    assert isinstance(out, tuple) and out[0].shape == SAMPLE.shape
    small(SAMPLE, torch.tensor([1, 2])).sample.square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    small.zero_grad()


def test_what_no_configuration_says_is_refused(small, tmp_path):
    with pytest.raises(fxprune.UnsupportedError, match=r"none of UNet2DModel's configurations says this result: "
                                                       r".*time_embedding\.linear_1\.weight has shape \[32, 16\] here"):
        small.save_pretrained(tmp_path)
    pipeline = diffusers.DDPMPipeline(small, diffusers.DDPMScheduler(num_train_timesteps=10))
    with pytest.raises(fxprune.UnsupportedError, match="save_pretrained writes what a configuration says"):
        pipeline.save_pretrained(tmp_path)


@pytest.mark.slow
def test_a_result_that_its_configuration_says_is_saved(tmp_path):
    small = compressed(channels=1.0)
    small.save_pretrained(tmp_path)
    again = diffusers.UNet2DModel.from_pretrained(tmp_path)
    assert torch.allclose(again(SAMPLE, 3).sample, small(SAMPLE, 3).sample, atol=1e-6)


def test_kept_whole_and_put_into_a_pipeline(small, tmp_path):
    torch.save(small, tmp_path / "small.pt")
    again = torch.load(tmp_path / "small.pt", weights_only=False)
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(num_train_timesteps=10)).save_pretrained(tmp_path / "whole")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "whole", unet=again)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet is again and pipeline(num_inference_steps=1, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.mark.slow
def test_a_stable_diffusion_pipeline():
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, norm_num_groups=8,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")).eval()
    words = torch.randn(2, 7, 32)
    small = fxprune.compress(net, {"sample": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([1, 1]),
                                   "encoder_hidden_states": words}, channels=0.5, form="module")
    decoder = diffusers.AutoencoderKL(block_out_channels=(16,), down_block_types=("DownEncoderBlock2D",),
                                      up_block_types=("UpDecoderBlock2D",), norm_num_groups=8, latent_channels=4)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=decoder, text_encoder=None, tokenizer=None, unet=small, scheduler=diffusers.DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(prompt_embeds=words[:1], negative_prompt_embeds=words[1:], num_inference_steps=2, height=16,
                   width=16, output_type="np").images
    assert out.shape == (1, 16, 16, 3) and out.std() > 0
