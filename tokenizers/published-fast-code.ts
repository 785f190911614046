/**
 * The Python file of a published folder: the class that transformers' AutoProcessor makes of it, under the name of the published
 * code (physical-intelligence/fast), with the encoding and the repairs of FastTokenizer.
 */
export const PROCESSOR_FILE = 'processing_action_tokenizer';

export const processorCode = `"""FAST action tokens (Pertsch et al., arXiv 2501.09747), written by Insula; MIT licence."""

import warnings

import numpy as np
from scipy.fft import dct, idct
from transformers.processing_utils import ProcessorMixin


class UniversalActionProcessor(ProcessorMixin):
    attributes = ["bpe_tokenizer"]
    bpe_tokenizer_class = "AutoTokenizer"

    def __init__(
        self, bpe_tokenizer, scale=10, vocab_size=1024, min_token=0, *, action_dim=None, time_horizon=None, **kwargs
    ):
        self.scale = scale
        self.vocab_size = vocab_size
        self.min_token = min_token
        self.action_dim = action_dim
        self.time_horizon = time_horizon
        super().__init__(bpe_tokenizer)
        vocabulary = bpe_tokenizer.get_vocab()
        spell = bpe_tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
        bytes_of = {c: "".join(piece for piece, _ in spell(chr(c))) for c in range(0xD800)}
        # Only these characters have tokens; the nearest of them replaces another.
        self._known = np.array([c for c, text in bytes_of.items() if all(byte in vocabulary for byte in text)])

    def __call__(self, action_chunk):
        """Normalised chunks [batch, horizon, dimension], or one, to a list of ids for each."""
        chunks = np.asarray(action_chunk)
        if chunks.ndim == 2:
            chunks = chunks[None]
        if chunks.ndim != 3:
            raise ValueError(f"expected [batch, horizon, dimension], got shape {chunks.shape}")
        self.called_time_horizon, self.called_action_dim = chunks.shape[1:]
        quantised = np.around(dct(chunks.astype(np.float64), axis=1, norm="ortho") * self.scale)
        symbols = np.clip(quantised - self.min_token, 0, self._known[-1]).astype(int)
        after = np.searchsorted(self._known, symbols)
        before = np.maximum(after - 1, 0)
        nearer = self._known[after] - symbols < symbols - self._known[before]
        exact = self._known[after] == symbols
        symbols = self._known[np.where(nearer | exact | (after == 0), after, before)]
        texts = ["".join(map(chr, own.flatten())) for own in symbols]
        return [self.bpe_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    def decode(self, tokens, *, time_horizon=None, action_dim=None):
        """Lists of ids to chunks [batch, horizon, dimension]; missing coefficients become 0, with a warning."""
        horizon = time_horizon or self.time_horizon or getattr(self, "called_time_horizon", None)
        dimension = action_dim or self.action_dim or getattr(self, "called_action_dim", None)
        if horizon is None or dimension is None:
            raise ValueError("decode needs time_horizon and action_dim")
        chunks = []
        for ids in tokens:
            text = self.bpe_tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            coefficients = np.array([ord(character) for character in text], dtype=np.float64) + self.min_token
            if coefficients.size != horizon * dimension:
                warnings.warn(f"{coefficients.size} coefficients for {horizon} x {dimension}: cut or padded with 0")
                coefficients = np.resize(np.append(coefficients, np.zeros(horizon * dimension)), horizon * dimension)
            chunks.append(idct(coefficients.reshape(horizon, dimension) / self.scale, axis=0, norm="ortho"))
        return np.stack(chunks)

    def batch_decode(self, *arguments, **options):
        return self.decode(*arguments, **options)
`;
