"""lerobot-train at the small sizes of lerobot-policies.py, for past-one-machine.test.ts.

train FOLDER ARGUMENTS...   what lerobot-train takes; FOLDER gets STEP-PROCESS.safetensors: what the policy got and gave
openpi FOLDER FILE OUT      loads FILE into the model of FOLDER as openpi's training does, and saves that model as openpi does
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from lerobot.policies.pi05 import modeling_pi05
from safetensors.torch import load_model, save_file, save_model

small = importlib.import_module("lerobot-policies").small


def train(folder, *arguments):
    from lerobot.scripts import lerobot_train

    given = {}

    def forward(model, pictures, seen, ids, valid, actions, noise, time, run=modeling_pi05.PI05Pytorch.forward):
        images = torch.stack([own.permute(0, 2, 3, 1) for own in pictures], 1)
        given.update(images=images, cameraValid=torch.stack(seen, 1).int(), ids=ids.int(), valid=valid.int())
        given.update(actions=actions, noise=noise, time=time)
        return run(model, pictures, seen, ids, valid, actions, noise, time)

    def update(metrics, policy, batch, optimizer, clip, accelerator, run=lerobot_train.update_policy, **named):
        rate, process = optimizer.param_groups[0]["lr"], accelerator.process_index
        metrics, out = run(metrics, policy, batch, optimizer, clip, accelerator, **named)
        numbers = {"rate": rate, "loss": out["loss"], "norm": metrics.grad_norm.val}
        numbers = {name: torch.tensor([own], dtype=torch.float32) for name, own in numbers.items()}
        tensors = {**given, **numbers, "index": batch["index"].int()}
        step = len(list(Path(folder).glob(f"*-{process}.safetensors")))
        said = {"processes": str(accelerator.num_processes), "engine": accelerator.distributed_type.value}
        save_file({name: own.contiguous() for name, own in tensors.items()}, f"{folder}/{step}-{process}.safetensors", said)
        return metrics, out

    modeling_pi05.PI05Pytorch.forward = forward
    lerobot_train.update_policy = update
    sys.argv[1:] = arguments
    lerobot_train.main()


def openpi(folder, file, out):
    model = modeling_pi05.PI05Policy.from_pretrained(folder).model
    # As in the transformers that openpi pins, and not in LeRobot's, the head is the embeddings.
    backbone = model.paligemma_with_expert.paligemma
    backbone.lm_head.weight = backbone.model.language_model.embed_tokens.weight
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_model(model, file)
    save_model(model, out)


if __name__ == "__main__":
    small(modeling_pi05)
    {"train": train, "openpi": openpi}[sys.argv[1]](*sys.argv[2:])
