import { randomStream } from '../../engine/random.ts';
import type { Image } from '../../model/data/dataset.ts';
import type { FilmedEpisode } from '../../model/report/film-strip.ts';
import type { AttentionEdge, ReportData } from '../../model/report/report-data.ts';

const DIMENSIONS = ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper'];
const HORIZON = 10;
const GROUPS = ['vision encoder', 'language embedding', 'backbone', 'action expert', 'action head'];

/** A table top with a cube and a bin. */
function scene(size: number, cubeX: number, cubeY: number): Image {
  const pixels = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const inside = (centreX: number, centreY: number, half: number) =>
        Math.abs(x / size - centreX) < half && Math.abs(y / size - centreY) < half;
      let rgb = y < size / 4 ? [176, 190, 204] : [150 - (40 * y) / size, 120 - (30 * y) / size, 92];
      if (inside(0.75, 0.6, 0.14)) rgb = inside(0.75, 0.6, 0.1) ? [34, 62, 140] : [52, 92, 200];
      if (inside(cubeX, cubeY, 0.07)) rgb = [204, 44, 38];
      pixels.set(rgb, (y * size + x) * 3);
    }
  }
  return { width: size, height: size, pixels };
}

/** A cube that is pushed to the right over three calls, and a policy that points to it. */
export function film(success: boolean): FilmedEpisode {
  const cubeAt = (call: number) => 0.25 + 0.1 * call;
  return {
    instruction: 'push the red cube to the right',
    success,
    outcome: success ? 'pushed the red cube to the right' : 'never reached the red cube',
    steps: 13,
    frames: [0, 1, 2].map((call) => ({
      step: 5 * call,
      image: scene(64, cubeAt(call), 0.6),
      said: { words: 'red cube', places: [[0.6, cubeAt(call)]] },
      gripper: 'gripper at x 3, y -5, z 12 cm',
      predicted: [
        [0.3, cubeAt(call) - 0.1],
        [0.5, cubeAt(call)],
      ],
      went: [
        [0.3, cubeAt(call) - 0.1],
        [0.6, cubeAt(call)],
      ],
    })),
    end: scene(64, cubeAt(3), 0.6),
  };
}

/** A made-up run of a knowledge-insulated policy with every part of a report; the same for the same seed. */
export function demoReport(seed = 1): ReportData {
  const random = randomStream(seed, 0, 7);
  let index = 0;
  const noise = () => random.normal(index++);

  const loss = (step: number) => ({
    token: 2.05 + 4.2 * Math.exp(-step / 170) + 0.14 * noise() * Math.exp(-step / 900),
    flow: 0.36 + 1.5 * Math.exp(-step / 120) * (1 + 0.15 * noise()) + 0.05 * Math.abs(noise()),
  });
  const training = Array.from({ length: 900 }, (_, step) => ({
    step: step + 1,
    seconds: (step + 1) * 0.2,
    losses: loss(step),
  }));
  training[0].losses.flow = 9.5;
  const heldOut = Array.from({ length: 10 }, (_, i) => {
    const step = 100 * i;
    return {
      step,
      losses: {
        token: 2.2 + 4.1 * Math.exp(-step / 180) + 0.02 * noise(),
        flow: 0.43 + 1.45 * Math.exp(-step / 125) + 0.01 * noise(),
      },
    };
  });

  const norms = GROUPS.flatMap((group, place) =>
    Array.from({ length: 19 }, (_, i) => i * 50).flatMap((step) => {
      const size = 10 ** (0.4 - 0.5 * place + 0.12 * noise()) * (0.15 + Math.exp(-step / 200));
      return [
        { step, group, loss: 'token', norm: place < 3 ? size : 0 },
        { step, group, loss: 'flow', norm: place < 3 ? 0 : 4 * size },
      ];
    }),
  );

  const full = { mask: 'full', keyGradient: 1, valueGradient: 1 } as const;
  const insulated = { mask: 'full', keyGradient: 0, valueGradient: 0 } as const;
  const edges: AttentionEdge[] = [];
  for (const key of ['image', 'language', 'state']) {
    for (const query of ['image', 'language', 'state', 'target']) edges.push({ query, key, ...full });
    edges.push({ query: 'action', key, ...insulated });
  }
  edges.push({ query: 'target', key: 'target', mask: 'causal', keyGradient: 1, valueGradient: 1 });
  edges.push({ query: 'action', key: 'target', mask: 'none', keyGradient: 1, valueGradient: 1 });
  edges.push({ query: 'action', key: 'action', ...full });

  const samples = ['put the red cube in the blue bin', 'push the green cube to the left', undefined].map(
    (instruction, place) => {
      const demonstrated = new Float32Array(HORIZON * DIMENSIONS.length);
      const predicted = demonstrated.slice();
      const mean = demonstrated.slice();
      for (let dimension = 0; dimension < DIMENSIONS.length; dimension++) {
        const size = dimension < 3 ? 0.7 : 0.25;
        const bias = 0.08 * noise();
        for (let step = 0; step < HORIZON; step++) {
          const i = step * DIMENSIONS.length + dimension;
          const smooth = size * Math.sin(step / 4 + 1.3 * dimension + place);
          demonstrated[i] = dimension === 6 ? (step < 6 - place ? 1 : -1) : smooth;
          mean[i] = (dimension === 6 ? Math.tanh(6.2 - place - step) : 0.85 * smooth) + bias;
          predicted[i] = mean[i] + 0.12 * noise();
        }
      }
      const image = place < 2 ? scene(64, 0.3 + 0.1 * place, 0.5 + 0.2 * place) : undefined;
      const validSteps = place === 1 ? 6 : HORIZON;
      return { instruction, image, dimensions: DIMENSIONS, demonstrated, predicted, mean, validSteps };
    },
  );

  const colours = ['red', 'green', 'yellow', 'blue'];
  const episodes = Array.from({ length: 20 }, (_, i) => {
    const success = random.uniform(index++) < 0.5;
    return {
      instruction: `put the ${colours[i % 4]} cube in the ${colours[(i + 1 + (i % 3)) % 4]} bin`,
      success,
      rightObject: success || random.uniform(index++) < 0.6,
      steps: success ? 22 + random.integer(index++, 14) : 40,
    };
  });

  return {
    title: 'Knowledge insulation on the tabletop world',
    command: 'insula train --system knowledge-insulation --preset demo --seed 1 --out runs/demo',
    adapter: 'llvmpipe (LLVM 19.1.7, 256 bits), Vulkan, software',
    date: '2026-11-21 10:40 UTC',
    seed,
    system: 'knowledge-insulation',
    preset: 'demo',
    settings: ['--ema 0.99', '--steps 900'],
    parameters: [182_016, 65_536, 1_049_600, 328_192, 4_615].map((count, i) => ({ group: GROUPS[i], count })),
    data: {
      name: 'tabletop',
      episodes: 64,
      heldOut: '6 of 64 episodes, chosen by seed',
      rate: 10,
      horizon: HORIZON,
      missing: [],
    },
    phases: [
      { name: 'data', seconds: 38.4 },
      { name: 'compile', seconds: 6.2 },
      { name: 'train', seconds: 180.1 },
      { name: 'evaluate', seconds: 41.7 },
    ],
    objectives: [
      { name: 'token', title: 'token loss', meaning: 'nats per token', baseline: 'unigram predictor' },
      { name: 'flow', title: 'flow loss', meaning: 'squared velocity error', baseline: 'best constant velocity' },
    ],
    curves: { training, heldOut, baselines: { token: 4.81, flow: 1.32 } },
    gradients: {
      norms,
      expectedZero: GROUPS.map((group, place) =>
        place < 3
          ? { loss: 'flow', group, reason: 'cut by the table' }
          : { loss: 'token', group, reason: 'no token reads the actions' },
      ),
    },
    attention: {
      blocks: [
        { name: 'image', length: 16 },
        { name: 'language', length: 12 },
        { name: 'state', length: 3 },
        { name: 'target', length: 28 },
        { name: 'action', length: HORIZON },
      ],
      edges,
      history: 'It sees a window of 8 control steps.',
    },
    chunks: { unit: 'normalised to the 1 % and 99 % quantiles', samples },
    openLoop: {
      measure: 'mean absolute error over valid steps, normalised actions',
      observations: 48,
      oneSample: 0.214,
      meanOfEight: 0.161,
      bestConstant: 0.372,
    },
    closedLoop: { episodes },
    films: [film(true), film(false)],
    swapped: { examples: 48, pictures: { token: 1.02, flow: 1.61 }, words: { token: 1.3, flow: 0.9994 } },
    kept: {
      scenes: 12,
      before: { objects: 60, near: 0.9, others: 300, tokens: 0.78 },
      after: { objects: 60, near: 0.85, others: 300, tokens: 0.5 },
    },
    latency: [
      { part: 'images', milliseconds: 3.1 },
      { part: 'prefix', milliseconds: 11.8 },
      ...Array.from({ length: 10 }, (_, i) => ({
        part: `Euler step ${i + 1}`,
        milliseconds: 2.3 + 0.2 * random.uniform(index++),
      })),
    ],
    notes: ['All numbers on this page are made up: it shows what a report looks like.'],
  };
}
