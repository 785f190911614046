"""Gives the pi0.5 in FOLDER processors of LeRobot for relative actions, and writes what they make of a chunk, for relative-actions.test.ts."""

import sys
from pathlib import Path

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi05 import processor_pi05
from safetensors.torch import save_file


def main(folder):
    torch.manual_seed(5)
    config = PreTrainedConfig.from_pretrained(folder)
    config.use_relative_actions, config.action_feature_names = True, ["x", "Left Gripper.pos", "z", "turn"]
    names = ["q01", "mean", "q99", "std"]
    features = {**config.input_features, **config.output_features}
    sizes = {key: own.shape[0] for key, own in features.items() if key in ("observation.state", "action")}
    stats = {key: {name: torch.rand(size) + i for i, name in enumerate(names)} for key, size in sizes.items()}
    make = processor_pi05.TokenizerProcessorStep
    processor_pi05.TokenizerProcessorStep = lambda tokenizer_name, **own: make(tokenizer_name=f"{folder}/tokenizer", **own)
    before, after = processor_pi05.make_pi05_pre_post_processors(config, stats)
    config.save_pretrained(folder)
    for pipeline in (before, after):
        pipeline.save_pretrained(folder)
    state, actions = torch.randn(1, sizes["observation.state"]), torch.randn(1, config.chunk_size, sizes["action"])
    batch = before({"observation.state": state, "action": actions, "task": ["put the red cube in the blue bin"]})
    chunk = batch["action"]
    save_file({"state": state, "actions": actions, "normalised": chunk, "absolute": after(chunk)}, Path(folder) / "reference.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
