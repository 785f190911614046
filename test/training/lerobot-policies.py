"""Writes and reads small policies of LeRobot itself, for lerobot-policies.test.ts.

write KIND FOLDER TOKENIZER [FAST]   weights, config and processors, and reference.safetensors: inputs, and what the policy makes of them
read KIND FOLDER REFERENCE OUT       what LeRobot makes of the same inputs with the policy of FOLDER, and its processors of an observation
base FOLDER                          a small PaliGemma of transformers, in several files
siglip FOLDER                        a small SiglipModel of transformers, and its vision tower alone in FOLDER-vision
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi0 import modeling_pi0, processor_pi0
from lerobot.policies.pi0_fast import modeling_pi0_fast, processor_pi0_fast
from lerobot.policies.pi05 import modeling_pi05, processor_pi05
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from safetensors.torch import load_file, save_file

VOCABULARY, WIDTHS, STEPS = 800, {"gemma_2b": (64, 128), "gemma_300m": (32, 96)}, 4
MODULES = {
    "pi0": (modeling_pi0, modeling_pi0.PI0Policy, modeling_pi0.PI0Config, processor_pi0),
    "pi05": (modeling_pi05, modeling_pi05.PI05Policy, modeling_pi05.PI05Config, processor_pi05),
    "pi0_fast": (modeling_pi0_fast, modeling_pi0_fast.PI0FastPolicy, modeling_pi0_fast.PI0FastConfig, processor_pi0_fast),
}
layers = []


def small(module):
    """Gives the published variants small sizes, and records the residual streams after each layer."""

    def gemma_config(variant):
        width, hidden = WIDTHS[variant]
        return module.GemmaConfig(width=width, depth=2, mlp_dim=hidden, num_heads=8, num_kv_heads=1, head_dim=16)

    def paligemma(config, make=module.PaliGemmaForConditionalGenerationWithPiGemma):
        vision = config.vision_config
        vision.hidden_size, vision.intermediate_size, vision.projection_dim = 32, 80, WIDTHS["gemma_2b"][0]
        vision.num_hidden_layers, vision.num_attention_heads, vision.image_size = 2, 2, 28
        config.projection_dim, config.text_config.vocab_size, config._vocab_size = vision.projection_dim, VOCABULARY, VOCABULARY
        return make(config)

    module.get_gemma_config = gemma_config
    module.PaliGemmaForConditionalGenerationWithPiGemma = paligemma
    if module is modeling_pi0_fast:
        return

    def gemma(config, make=module.PiGemmaForCausalLM):
        config.vocab_size = VOCABULARY
        return make(config)

    def layer(*args, run=module.compute_layer_complete, **named):
        layers.append(run(*args, **named))
        return layers[-1]

    module.PiGemmaForCausalLM = gemma
    module.compute_layer_complete = layer


def evaluate(policy, given, gradients=True):
    """Loss, velocity, residual streams, gradients and sampled actions."""
    if policy.config.type == "pi0_fast":
        return evaluate_fast(policy, given, gradients)
    layers.clear()
    velocity = []
    hook = policy.model.action_out_proj.register_forward_hook(lambda *own: velocity.append(own[2]))
    pictures = [own.permute(0, 3, 1, 2) for own in given["images"].unbind(1)]
    masks = [own.bool() for own in given["cameraValid"].unbind(1)]
    prefix = (pictures, masks, given["ids"].long(), given["valid"].bool())
    state = (given["state"],) if hasattr(policy.model, "state_proj") else ()
    dimensions = policy.config.output_features["action"].shape[0]
    losses = policy.model.forward(*prefix, *state, given["actions"], given["noise"], given["time"])
    loss = losses[:, :, :dimensions].mean()
    out = {"loss": loss.reshape(1), "velocity": velocity[0]}
    for i, (backbone, expert) in enumerate(layers):
        out[f"residual/{i}/backbone"], out[f"residual/{i}/expert"] = backbone, expert
    hook.remove()
    if gradients:
        loss.backward()
        for name, parameter in policy.named_parameters():
            if parameter.grad is not None:
                out[f"gradient/{name}"] = parameter.grad
    out["sampled"] = policy.model.sample_actions(*prefix, *state, noise=given["noise"], num_steps=STEPS)
    return {name: own.detach().contiguous().clone() for name, own in out.items()}


def evaluate_fast(policy, given, gradients):
    """Loss, residual streams, gradients, and the ids that greedy decoding chooses."""
    pictures = [own.permute(0, 3, 1, 2) for own in given["images"].unbind(1)]
    prefix = (pictures, [own.bool() for own in given["cameraValid"].unbind(1)], given["ids"].long(), given["valid"].bool())
    out = {}
    hooks = [
        layer.register_forward_hook(lambda *own, i=i: out.update({f"residual/{i}/backbone": own[2]}))
        for i, layer in enumerate(policy.model.paligemma_with_expert.paligemma.model.language_model.layers)
    ]
    loss = policy.model.forward(*prefix, given["target"].long(), given["targetValid"].bool())["loss"]
    for hook in hooks:
        hook.remove()
    out["loss"] = loss.reshape(1)
    if gradients:
        policy.zero_grad()
        loss.backward()
        for name, parameter in policy.named_parameters():
            if parameter.grad is not None:
                out[f"gradient/{name}"] = parameter.grad
    out["greedy"] = policy.model.sample_actions_fast(*prefix, max_decoding_steps=policy.config.max_decoding_steps).int()
    return {name: own.detach().contiguous().clone() for name, own in out.items()}


def learn(policy, folder):
    """Trains until greedy decoding says the actions of the observation of `processed`."""
    batch = processors_of(folder)[0]({**OBSERVATION, "action": CHUNK})
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    for _ in range(80):
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("loss", loss.item())


def write(kind, folder, tokenizer, fast=None):
    module, policy_class, config_class, processors = MODULES[kind]
    small(module)
    torch.manual_seed(7)
    features = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 28, 28)) for name in ["top", "wrist"]}
    names = {"text_tokenizer_name": tokenizer, "action_tokenizer_name": fast, "validate_action_token_prefix": False}
    own = {**names, "max_action_tokens": 64, "max_decoding_steps": 64} if fast else {}
    config = config_class(
        **own, device="cpu", chunk_size=6, n_action_steps=6, max_state_dim=8, max_action_dim=8, image_resolution=(28, 28),
        tokenizer_max_length=40, input_features={**features, "observation.state": PolicyFeature(FeatureType.STATE, (5,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )  # fmt: skip
    policy = policy_class(config)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0, 0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5)
    names = ["min", "q01", "mean", "q99", "max"]
    stats = {
        key: {**{name: torch.rand(size) + i for i, name in enumerate(names)}, "std": torch.rand(size) + 0.5}
        for key, size in [("observation.state", 5), ("action", 7)]
    }
    make = processors.TokenizerProcessorStep
    processors.TokenizerProcessorStep = lambda tokenizer_name, **own: make(tokenizer_name=tokenizer, **own)
    for pipeline in getattr(processors, f"make_{kind}_pre_post_processors")(config, stats):
        pipeline.save_pretrained(folder)
    if fast:
        learn(policy, folder)
    policy.save_pretrained(folder)
    valid = torch.zeros(2, 40, dtype=torch.int32)
    valid[0, :9] = valid[1, :12] = 1
    state = torch.zeros(2, 8)
    state[:, :5] = torch.randn(2, 5)
    actions = torch.zeros(2, 6, 8)
    actions[:, :, :7] = torch.randn(2, 6, 7)
    given = {
        "images": torch.rand(2, 2, 28, 28, 3) * 2 - 1,
        "cameraValid": torch.tensor([[1, 1], [1, 0]], dtype=torch.int32),
        "ids": torch.randint(3, 300, (2, 40), dtype=torch.int32) * valid,
        "valid": valid,
        "state": state,
        "actions": actions,
        "noise": torch.randn(2, 6, 8),
        "time": torch.tensor([0.3, 0.85]),
    }
    if fast:
        target = torch.zeros(2, 64, dtype=torch.int32)
        # LeRobot's mean is that of all tokens of a batch, openpi's and Insula's that of the means of the examples.
        target[:, :50] = 1
        given["targetValid"] = target
        given["target"] = torch.randint(3, 700, (2, 64), dtype=torch.int32) * target
    save_file({**given, **evaluate(policy, given), **processed(policy, folder)}, Path(folder) / "reference.safetensors")


OBSERVATION = {
    "observation.state": torch.tensor([0.4, 2.0, 3.1, 1.7, 2.2]),
    "task": "put the Red cube in the blue bin",
    "observation.images.top": torch.zeros(3, 28, 28),
    "observation.images.wrist": torch.zeros(3, 28, 28),
}
CHUNK = torch.sin(torch.arange(42) / 5).reshape(1, 6, 7)


def processors_of(folder):
    """The processors of a folder; LeRobot does not keep the name of PaliGemma's tokenizer in one of their steps."""
    steps = json.loads((Path(folder) / "policy_preprocessor.json").read_text())["steps"]
    own = {step["registry_name"]: step["config"] for step in steps}
    fast, name = own.get("action_tokenizer_processor", {}), "paligemma_tokenizer_name"
    missing = fast and name not in fast
    overrides = {"action_tokenizer_processor": {name: own["tokenizer_processor"]["tokenizer_name"]}} if missing else {}
    before = PolicyProcessorPipeline.from_pretrained(folder, config_filename="policy_preprocessor.json", overrides=overrides)
    after = PolicyProcessorPipeline.from_pretrained(
        folder, config_filename="policy_postprocessor.json",
        to_transition=policy_action_to_transition, to_output=transition_to_policy_action,
    )  # fmt: skip
    return before, after


def processed(policy, folder):
    """What the processors make of one observation, and of one normalised chunk; and what pi0-FAST says and does."""
    before, after = processors_of(folder)
    batch = before(OBSERVATION)
    chunk = torch.linspace(-1.2, 1.2, 42).reshape(1, 6, 7)
    own = {}
    if policy.config.type == "pi0_fast":
        policy.config.validate_action_token_prefix = False
        trained = before({**OBSERVATION, "action": CHUNK})
        tokens, valid = trained["action.tokens"], trained["action.token_mask"]
        acted = after(policy.predict_action_chunk(batch))
        own = {"processed/tokens": tokens[valid].int(), "processed/acted": acted.contiguous()}
    return {
        **own,
        "processed/state": batch["observation.state"],
        "processed/ids": batch["observation.language.tokens"].int(),
        "processed/valid": batch["observation.language.attention_mask"].int(),
        "processed/actions": after(chunk).contiguous(),
    }


def read(kind, folder, reference, out):
    module, policy_class, _, _ = MODULES[kind]
    small(module)
    policy = policy_class.from_pretrained(folder)
    # The loader reports what it could not load in a line and goes on.
    for name, own in load_file(Path(folder) / "model.safetensors").items():
        assert torch.equal(policy.state_dict()[name], own.to(policy.state_dict()[name].dtype)), name
    given = load_file(reference)
    save_file({**evaluate(policy, given), **processed(policy, folder)}, out)
    print(json.dumps({"type": policy.config.type, "dtype": policy.config.dtype}))


def base(folder):
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    width, hidden = WIDTHS["gemma_2b"]
    config = PaliGemmaConfig(projection_dim=width, image_token_index=VOCABULARY - 1)
    text = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 8}
    for name, own in {**text, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": VOCABULARY}.items():
        setattr(config.text_config, name, own)
    vision = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}
    for name, own in {**vision, "projection_dim": width, "image_size": 28, "patch_size": 14}.items():
        setattr(config.vision_config, name, own)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder, max_shard_size="300KB")


def siglip(folder):
    from transformers import SiglipConfig, SiglipModel, SiglipVisionModel

    sizes = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(text_config={**sizes, "vocab_size": 50}, vision_config={**sizes, "image_size": 28, "patch_size": 14})
    SiglipModel(config).save_pretrained(folder)
    SiglipVisionModel(config.vision_config).save_pretrained(f"{folder}-vision")


if __name__ == "__main__":
    {"write": write, "read": read, "base": base, "siglip": siglip}[sys.argv[1]](*sys.argv[2:])
