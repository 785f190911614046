import { backward, type Tensor } from '../../engine/index.ts';
import { type TrainingBatch, tensorsOf, trainingInputs } from '../../model/architecture/inputs.ts';
import { trainingPass } from '../../model/architecture/losses.ts';
import { Model } from '../../model/architecture/model.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { testDevice } from '../support/devices.ts';
import { integers, normals } from '../support/numbers.ts';

const sizes = {
  backbone: { width: 32, hidden: 64, vocabulary: 50 },
  expert: { width: 24, hidden: 40 },
  depth: 2,
  heads: 2,
  kvHeads: 1,
  headDimension: 16,
  vision: { width: 32, depth: 1, heads: 2, hidden: 48, patch: 8, imageHeight: 16, imageWidth: 16, cameras: 1 },
  languageTokens: 6,
  fastTokens: 5,
  horizon: 4,
  actionDimension: 3,
  stateDimension: 0,
};

function randomBatch(batch: number): TrainingBatch {
  const { vision, languageTokens, fastTokens, horizon, actionDimension, backbone } = sizes;
  const rows = (vision.imageHeight / vision.patch) * (vision.imageWidth / vision.patch) + languageTokens + fastTokens;
  const ids = (length: number, seed: number) => ({
    ids: integers(batch * length, backbone.vocabulary, seed),
    valid: new Uint8Array(batch * length).fill(1),
  });
  return {
    batch,
    images: normals(batch * vision.imageHeight * vision.imageWidth * 3, 1, 0.5),
    cameraValid: new Uint8Array(batch).fill(1),
    ids: { language: ids(languageTokens, 2), fast: ids(fastTokens, 3) },
    state: null,
    lossTarget: integers(batch * rows, backbone.vocabulary, 4),
    lossMask: Uint8Array.from({ length: batch * rows }, (_, i) => (i % rows >= rows - fastTokens - 1 ? 1 : 0)),
    actions: normals(batch * horizon * actionDimension, 5),
    noise: normals(batch * horizon * actionDimension, 6),
    time: Float32Array.from({ length: batch }, (_, i) => (i + 1) / (batch + 1)),
    actionValid: null,
    realDimensions: null,
  };
}

export interface TrainingFigures {
  tokenLoss: number;
  flowLoss: number;
  /** L2 norm of every parameter's gradient. */
  gradients: { name: string; norm: number }[];
}

/** One pass and its backward of a tiny model under knowledge insulation. */
export async function trainingFigures(): Promise<TrainingFigures> {
  using model = new Model(await testDevice('normal'), configurationOf(systemNamed('knowledge-insulation'), sizes));
  model.initialise(1);
  const { tokenLoss, flowLoss } = model.device.step(() => {
    const pass = trainingPass(model, tensorsOf(model.device, trainingInputs(model.configuration, randomBatch(3))));
    backward(pass.loss);
    return { tokenLoss: pass.tokenLoss!, flowLoss: pass.flowLoss! };
  });
  const read = async (loss: Tensor) => {
    const [value] = await loss.read();
    loss.dispose();
    return value;
  };
  const gradients = [];
  for (const { name, grad } of model.parameters) gradients.push({ name, norm: Math.hypot(...(await grad!.read())) });
  return { tokenLoss: await read(tokenLoss), flowLoss: await read(flowLoss), gradients };
}
