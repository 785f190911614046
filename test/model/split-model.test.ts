/** A model whose token embeddings, and head beside them, lie in pieces of rows: it learns, acts and is measured as a whole one. */
import { describe, expect, test } from 'vitest';
import { ParameterSet } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { lossGradients } from '../../model/inspect/loss-gradients.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const VOCABULARY = 200;
const pieceBytes = 4 * 64 * tinySizes.backbone.width;

async function modelOf(backbone: 'gemma' | 'llama', split: boolean): Promise<Model> {
  const device = await testDevice('normal');
  const sizes = { ...tinySizes, vocabulary: VOCABULARY };
  const configuration = { ...configurationOf(systemNamed('pi0-fast'), sizes), backbone };
  const { parameters } = new Architecture(configuration);
  const model = new Model(device, configuration, new ParameterSet(device, parameters, split ? { pieceBytes } : {}));
  const inPieces = [...model.parameters].filter(({ pieces }) => pieces.length > 1);
  expect(inPieces.map(({ pieces }) => pieces.length)).toEqual(split ? (backbone === 'llama' ? [4, 4] : [4]) : []);
  model.initialise(3);
  return model;
}

describe.each(['gemma', 'llama'] as const)('%s with a split token table', (backbone) => {
  const both = async <T>(measure: (model: Model) => Promise<T>): Promise<[split: T, whole: T]> => {
    using split = await modelOf(backbone, true);
    using whole = await modelOf(backbone, false);
    return [await measure(split), await measure(whole)];
  };

  test('begins with the same bits, and learns the same', async () => {
    const [split, whole] = await both(async (model) => {
      const first = await Promise.all(Array.from(model.parameters, (own) => own.read()));
      using optimizer = new AdamW(model.parameters, { weightDecay: 0.01, maximumNorm: 0.5 });
      using training = new TrainingStep(model, optimizer, {});
      const losses: Promise<Float32Array>[] = [];
      for (let step = 0; step < 3; step++) {
        const batch = randomBatch(model.configuration, 3, step);
        await training.run([trainingInputs(model.architecture, batch)], 1e-3, ({ token }) => losses.push(token.read()));
      }
      const last = await Promise.all(Array.from(model.parameters, (own) => own.read()));
      return { first, losses: (await Promise.all(losses)).flatMap((own) => [...own]), last };
    });
    expect(split.first).toEqual(whole.first);
    expect(split.losses).toHaveLength(3);
    expectClose(split.losses, whole.losses, 1e-6, 'losses');
    expectClose(
      split.last.flatMap((own) => [...own]),
      whole.last.flatMap((own) => [...own]),
      1e-5,
      'parameters',
    );
  });

  test('decodes the same tokens', async () => {
    const [split, whole] = await both(async (model) => {
      const said: number[][] = [[], []];
      const logits: Float32Array[] = [];
      await act(model, randomBatch(model.configuration, 2, 1), {
        writer: { allowed: () => 'all', write: (sample, id) => said[sample].push(id) > 0 },
        onLogits: (own) => logits.push(own),
      });
      return { said, logits };
    });
    expect(split.said[0]).toHaveLength(tinySizes.targetTokens);
    expect(split.said).toEqual(whole.said);
    split.logits.forEach((own, i) => {
      expect(own).toHaveLength(2 * VOCABULARY);
      expectClose(own, whole.logits[i], 1e-5, `logits ${i}`);
    });
  });

  test('its gradients are measured as one for each parameter', async () => {
    const [split, whole] = await both(async (model) => {
      const gradients = await lossGradients(
        model,
        trainingInputs(model.architecture, randomBatch(model.configuration, 2, 1)),
      );
      const { name: ofHead } = model.architecture.tokenHead(model.parameters);
      const all = Array.from(model.parameters, ({ name }) => [...gradients.token(name)]);
      return { all: all.flat(), head: gradients.token(ofHead) };
    });
    expectClose(split.all, whole.all, 1e-5, 'gradients');
    expectClose(split.head, whole.head, 1e-5, 'gradient of the head');
  });
});
