"""What transformers' PaliGemma makes of a folder, for paligemma-folder.test.ts: FOLDER INPUTS OUT."""

import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PaliGemmaForConditionalGeneration

folder, inputs, out = sys.argv[1:]
model, report = PaliGemmaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
assert not any(report.values()), report
model.eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
given = load_file(inputs)
prompt, answer = given["prompt"].long(), given["answer"].long()
assert tokenizer("point to the red cube\n").input_ids == prompt.tolist()
config = model.config
patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
ids = torch.cat([torch.full((patches,), config.image_token_id), prompt, answer])[None]
types = torch.zeros_like(ids)
types[:, patches + len(prompt) :] = 1
labels = torch.where(types == 1, ids, -100)
pictures = given["image"].permute(2, 0, 1)[None]
result = model(
    input_ids=ids, pixel_values=pictures, token_type_ids=types, labels=labels, attention_mask=torch.ones_like(ids)
)
result.loss.backward()
gradients = {f"gradient/{name}": own.grad for name, own in model.named_parameters() if own.grad is not None}
save_file(
    {"loss": result.loss.detach().reshape(1), **{name: own.contiguous() for name, own in gradients.items()}},
    out,
)
print(tokenizer.decode(answer))
