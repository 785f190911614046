"""Which parameters of a small pi0.5 of OpenTau get a gradient from which loss, as JSON, for opentau-gradients.test.ts."""

import json

import torch
from opentau.policies.pi05 import modeling_pi05, paligemma_with_expert
from opentau.policies.pi05.configuration_pi05 import PI05Config

VOCABULARY, ACTION_TOKENS, WIDTH = 800, 40, 64
LAYERS = {"num_attention_heads": 8, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": VOCABULARY}
VISION = {"hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 14, "image_size": 28}


def small(make=modeling_pi05.PaliGemmaWithExpertConfig, **own):
    """The published configuration with small sizes."""
    config = make(**own)
    backbone = config.paligemma_config
    backbone.hidden_size = backbone.projection_dim = backbone.vision_config.projection_dim = WIDTH
    backbone.image_token_index = VOCABULARY - 1
    backbone.text_config.update({**LAYERS, "hidden_size": WIDTH, "intermediate_size": 128})
    backbone.vision_config.update(VISION)
    config.gemma_expert_config.update({**LAYERS, "hidden_size": 32, "intermediate_size": 96, "adarms_cond_dim": 32})
    return config


class Tokenizer:
    """The published one is on a hub; the model asks for the ids of "Action: " alone."""

    def encode(self, text, add_special_tokens):
        return [5, 6, 7]


def main():
    modeling_pi05.PaliGemmaWithExpertConfig = small
    modeling_pi05.ensure_loc_tokens = lambda tokenizer: None
    modeling_pi05._preferred_dtype = paligemma_with_expert._preferred_dtype = lambda: torch.float32
    out = {}
    for insulated in (True, False):
        config = PI05Config(
            chunk_size=6, n_action_steps=6, max_state_dim=8, max_action_dim=8, proj_width=32, dropout=0, discrete_action_max_length=5,
            freeze_vision_encoder=False, train_expert_only=False, knowledge_insulation=insulated,
        )  # fmt: skip
        torch.manual_seed(1)
        model = modeling_pi05.PI05FlowMatching(config, ACTION_TOKENS, Tokenizer()).float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.1)
        yes = {"dtype": torch.bool}
        given = {
            "images": [torch.rand(2, 3, 28, 28)], "img_masks": [torch.ones(2, **yes)],
            "lang_tokens": torch.randint(3, 300, (2, 12)), "lang_masks": torch.ones(2, 12, **yes), "actions": torch.randn(2, 6, 8),
            "discrete_actions": torch.randint(1, ACTION_TOKENS, (2, 5)), "discrete_action_masks": torch.ones(2, 5, **yes),
        }  # fmt: skip
        for name, theirs in {"flow": "MSE", "token": "CE"}.items():
            model.zero_grad(set_to_none=True)
            model(**given)[theirs].backward()
            reached = {name: own.grad is not None and bool(own.grad.any()) for name, own in model.named_parameters()}
            out[f"{name}, {'insulated' if insulated else 'joint'}"] = reached
    print(json.dumps(out))


if __name__ == "__main__":
    main()
