import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convert } from '../../cli/convert.ts';
import type { ValuesOf } from '../../cli/options.ts';
import { readSafetensors } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import type { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { type Dataset, padded, type Sample, writeLeRobot } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { writeOpenpiPolicy } from '../../model/training/openpi-policy.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { runCommand } from '../support/run-command.ts';
import { minutePreset, syntheticDataset } from '../support/synthetic-dataset.ts';
import { trainRun } from '../support/train-run.ts';

// INSULA_LEROBOT names a Python with LeRobot (pip install "lerobot[pi,training]"), whose lerobot-train goes on from here.
const python = process.env.INSULA_LEROBOT;
const program = fileURLToPath(new URL('past-one-machine.py', import.meta.url));
const environment = { ...process.env, HF_HUB_OFFLINE: '1', OMP_NUM_THREADS: '1', ACCELERATE_USE_CPU: '1' };
const run = (...args: string[]) => promisify(execFile)(python!, args, { env: environment });

const IMAGE = 28;
/** The sizes of lerobot-policies.py. */
const preset = {
  ...minutePreset,
  name: 'checkpoint',
  ...{ depth: 2, heads: 8, kvHeads: 1, headDimension: 16, vocabulary: 800, stateBins: 256 },
  backbone: { width: 64, hidden: 128 },
  expert: { width: 32, hidden: 96 },
  vision: { width: 32, hidden: 80, depth: 2, heads: 2, patch: 14, image: IMAGE },
};
/** What lerobot-train sets for pi0.5. */
const adamW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.01, maximumNorm: 1, clip: 'together' } as const;

/** Pictures of the model's size, which no program resizes. */
function withPictures(dataset: Dataset): Dataset {
  const episodes = dataset.episodes.map((episode, index) => ({
    ...episode,
    image: async (_: string, step: number) => ({
      ...{ width: IMAGE, height: IMAGE },
      pixels: Uint8Array.from(normals(3 * IMAGE ** 2, 1000 * index + step, 50), (value) =>
        Math.max(0, Math.min(255, 128 + value)),
      ),
    }),
  }));
  return { ...dataset, episodes };
}

/** What the two processes got and gave in a step, one after the other. */
async function recorded(folder: string, step: number) {
  const all = new Map<string, number[]>();
  for (const process of [0, 1]) {
    const file = await readSafetensors(join(folder, `${step}-${process}.safetensors`));
    expect(Object.fromEntries(file.metadata)).toMatchObject({ processes: '2', engine: 'MULTI_CPU' });
    for (const [name, { dtype }] of file.tensors)
      all.set(name, [...(all.get(name) ?? []), ...(await file.read(name, dtype as 'F32' | 'I32'))]);
    await file.close();
  }
  return (name: string) => Float32Array.from(all.get(name)!);
}

async function weightsOf({ parameters }: Model): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const parameter of parameters) all.set(parameter.name, (await parameter.read()) as Float32Array);
  return all;
}

async function lossOf(model: Model, batch: TrainingBatch): Promise<number> {
  const inputs = trainingInputs(model.architecture, batch);
  const { loss } = model.device.step(() => ({ loss: trainingPass(model, tensorsOf(model.device, inputs)).loss }));
  return (await loss.read())[0];
}

/** What no action reads of the last layer of the backbone. LeRobot's AdamW passes over it; here it decays. */
const unread = /language_model\.(norm|layers\.1\.(self_attn\.[qo]_proj|mlp|post_attention_layernorm))/;
/** The softmax does not depend on a bias of all keys, so that its gradient is rounding alone. */
const vanishing = /vision_tower.*k_proj\.bias$/;
/** AdamW divides by the size of a gradient, so that rounding of the smallest ones moves weights visibly. */
const [LOSS, NORM, MOVED] = [1e-6, 1e-5, 5e-4];

describe.skipIf(!python)(`past one machine${python ? '' : ' (skipped: INSULA_LEROBOT names no Python)'}`, () => {
  let folder = '';
  let model: Model;
  const path = (name: string) => join(folder, name);
  const dataset = withPictures(syntheticDataset());
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'insula-machines-'));
    const { policy } = await trainRun(path('run.safetensors'), {
      ...{ system: 'pi05', preset, steps: 3, batch: 4, dataset: padded(dataset, 8, 'pi05') },
    });
    model = policy.model;
    const settings = { configuration: model.configuration, encoding: policy.encoding.settings };
    await writeLeRobotPolicy(path('policy'), model, settings, true);
  });
  afterAll(async () => {
    model.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  test('pi0.5 goes on in two processes of lerobot-train, and comes back as if it had stayed', {
    timeout: 600_000,
  }, async () => {
    await writeLeRobot(path('data'), dataset);
    await mkdir(path('record'));
    const engine = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'];
    await run(
      ...[...engine, program, 'train', path('record'), `--policy.path=${path('policy')}`, '--policy.device=cpu'],
      ...['--policy.push_to_hub=false', '--dataset.repo_id=own/data', `--dataset.root=${path('data')}`],
      ...['--policy.optimizer_lr=1e-3', '--batch_size=2', '--steps=2', '--num_workers=0'],
      `--output_dir=${path('theirs')}`,
    );
    await runCommand(convert, {
      ...{ checkpoint: path('theirs/checkpoints/last/pretrained_model'), rate: dataset.rate },
      ...{ 'text-tokenizer': path('policy/tokenizer'), out: path('back.safetensors') },
    } as ValuesOf<typeof convert.options>);
    const returned = await openCheckpoint(path('back.safetensors'));
    using trained = await returned.loadModel(model.device);
    expect(trained.configuration.blocks).toEqual(model.configuration.blocks);

    // The same two steps here: examples as lerobot-train drew them, encoded by what came back, with its noise and times.
    const encoding = new Encoding(returned.settings.encoding);
    const maker = new BatchMaker(encoding, trained.configuration, { seed: 0, augment: false });
    const before = await weightsOf(model);
    using optimizer = new AdamW(model.parameters, adamW);
    using training = new TrainingStep(model, optimizer);
    const batches: TrainingBatch[] = [];
    const rates: number[] = [];
    for (const step of [0, 1]) {
      const read = await recorded(path('record'), step);
      const examples = Array.from(read('index'), (index): Sample => {
        const episode = dataset.episodes[Math.floor(index / 12)];
        const part = { episode, from: 0, to: episode.length };
        return { part, step: index % 12, instruction: episode.instructions[0] };
      });
      const made = await maker.make(examples, 0);
      const { ids, valid } = made.ids.language;
      expect(Array.from(valid)).toEqual(Array.from(read('valid')));
      const real = (own: ArrayLike<number>) => Array.from(own).filter((_, i) => valid[i]);
      expect(real(ids)).toEqual(real(read('ids')));
      expectClose(made.images!, read('images'), 1e-6, 'pictures');
      expectClose(made.actions!, read('actions'), 1e-6, 'normalised actions');
      // LeRobot learns the repeated last action behind the end of an episode.
      const batch = { ...made, noise: read('noise'), time: read('time'), actionValid: null };
      let loss: Promise<ArrayLike<number>> | undefined;
      await training.run([trainingInputs(model.architecture, batch)], read('rate')[0], ({ flow }) => {
        loss = flow.read();
      });
      const [[one, other], { total }] = [read('loss'), await optimizer.gradientNorms.read()];
      expectClose(Array.from(await loss!), [(one + other) / 2], LOSS, `loss of step ${step}`);
      expectClose([total, total], read('norm'), NORM, `gradient norm of step ${step}`);
      batches.push(batch);
      rates.push(read('rate')[0]);
    }
    for (const batch of batches)
      expectClose([await lossOf(trained, batch)], [await lossOf(model, batch)], LOSS, 'loss after the two steps');
    const [stayed, came] = [await weightsOf(model), await weightsOf(trained)];
    const decay = rates.reduce((product, rate) => product * (1 - rate * adamW.weightDecay), 1);
    for (const [name, old] of before) {
      const [ours, theirs] = [stayed.get(name)!, came.get(name)!];
      const most = 1.01 * (rates[0] + rates[1]);
      if (vanishing.test(name))
        expect(Math.max(...ours.map((own, i) => Math.abs(own - theirs[i])))).toBeLessThan(2 * most);
      else if (unread.test(name)) {
        expectClose(
          ours,
          old.map((own) => own * decay),
          1e-7,
          name,
        );
        if (!name.includes('q_proj')) expectClose(theirs, old, 0, name);
      } else {
        const [moved, wanted] = [ours, theirs].map((own) => own.map((value, i) => value - old[i]));
        expectClose(moved, wanted, MOVED, `the way of ${name}`);
      }
    }
    await returned.close();
  });

  test("openpi's training loads the folder for it whole, and what it saves comes back", {
    timeout: 300_000,
  }, async () => {
    const policy = await openPublicPolicy(path('policy'), { rate: dataset.rate });
    using sent = await policy.loadModel(model.device);
    await writeOpenpiPolicy(path('openpi'), sent, policy.settings, true);
    const step = path('checkpoints/CONFIG/RUN/STEP');
    await cp(path('openpi/assets'), join(step, 'assets'), { recursive: true });
    await run(program, 'openpi', path('policy'), path('openpi/model.safetensors'), join(step, 'model.safetensors'));
    const statistics = join(step, 'assets/robot/norm_stats.json');
    const options = { rate: dataset.rate, horizon: 4, textTokenizer: path('policy/tokenizer'), statistics };
    const back = await openPublicPolicy(step, options);
    using returned = await back.loadModel(model.device);
    const weights = await weightsOf(returned);
    expect([...weights.keys()]).toEqual([...sent.parameters].map(({ name }) => name));
    for (const [name, own] of await weightsOf(sent)) expectClose(weights.get(name)!, own, 0, name);
    const [actions, again] = [policy, back].map(({ settings }) =>
      new Encoding(settings.encoding).denormaliseActions(normals(4 * 8, 5), { state: [0, 0] }),
    );
    expectClose(again, actions, 1e-6, 'actions in the units of the robot');
    await back.close();
    await policy.close();
  });
});
