/** Decodes of action tokens that do not complete their chunk. */
import { expect, test } from 'vitest';
import { Model } from '../../model/architecture/model.ts';
import { Decodes, decodesText } from '../../model/policy/decodes.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { byteCharacters } from '../../tokenizers/gpt2.ts';
import { BinActionTokenizer } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const column = { count: 1, mean: [0, 0], std: [1, 1], q01: [-1, -1], q99: [1, 1], min: [-1, -1], max: [1, 1] };
const encodingWith = (actions: object) =>
  new Encoding({
    ...{ stateAsText: false, stateBins: 256, cameras: [], actions },
    statistics: { bound: 10, actions: column, states: null },
  });
const [HORIZON, DIMENSION] = [2, 2];

test.each([
  [HORIZON * DIMENSION, 'malformed decodes 0 of 2 chunks'],
  [HORIZON * DIMENSION - 1, 'malformed decodes 2 of 2 chunks'],
])('a target block of %i tokens has %s', async (targetTokens, text) => {
  const encoding = encodingWith(new BinActionTokenizer({ bins: 8 }).toJSON());
  const configuration = configurationOf(systemNamed('pi0-fast'), {
    ...tinySizes,
    ...{ vocabulary: encoding.vocabularySize, vision: null, promptTokens: 30, targetTokens },
    ...{ horizon: HORIZON, actionDimension: DIMENSION, stateDimension: 0 },
  });
  using model = new Model(await testDevice('normal'), configuration);
  model.initialise(1);
  const decodes = new Decodes();
  const observation = { images: {}, state: null, instruction: 'go' };
  const options = { onDecoded: (complete: readonly boolean[]) => decodes.add(complete) };
  await new Policy(model, encoding).act([observation, observation], options);
  expect(decodesText(decodes.counts!)).toBe(text);
});

test('a tokenizer without a token that may come next is refused', () => {
  // Its coefficients are characters of three bytes, which the grammar does not allow.
  const bytes = new TextEncoder().encode('\u0800');
  const vocab = Object.fromEntries(Array.from(bytes, (byte, id) => [byteCharacters[byte], id]));
  const encoding = encodingWith({
    type: 'fast-published',
    tokenizer: {
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
      model: { type: 'BPE', vocab, merges: [] },
    },
    processor: { scale: 10, min_token: 0 },
  });
  const writer = encoding.chunkWriter({ horizon: HORIZON, dimension: DIMENSION });
  expect(() => writer.allowed()).toThrow(
    'the action tokenizer has no token that may follow at 0 of 8 of a chunk of 2 x 2 numbers',
  );
});
