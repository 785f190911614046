/** The memory of a training run, before any of it is allocated: the run itself, on a device that counts buffers and makes none. */
import { InputError } from '../../engine/files/errors.ts';
import { type Device, elementCount, planningDevice } from '../../engine/index.ts';
import { chosenVariants, useVariants } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { ObservationBatch } from '../architecture/inputs.ts';
import type { ModelParameter } from '../architecture/layers.ts';
import { Architecture, Model } from '../architecture/model.ts';
import { actingObjective } from '../architecture/objectives/index.ts';
import { trainingInputs } from '../architecture/training-pass.ts';
import { act } from '../policy/acting.ts';
import { PACKED_QUESTIONS } from '../systems/index.ts';
import { expectBatch } from './largest-batch.ts';
import { randomBatch } from './random-batch.ts';
import { loraOf, type RunSettings } from './run-settings.ts';
import { Trainer } from './trainer.ts';
import { TrainingStep } from './training-step.ts';

/** Bytes on the adapter. */
export interface MemoryPlan {
  /** The number of parameters, and of those that are not frozen. */
  readonly parameters: number;
  readonly trained: number;
  readonly weights: number;
  readonly gradients: number;
  /** Both moments of AdamW, with the norms of gradients. */
  readonly moments: number;
  /** The moving average of the weights. */
  readonly average: number;
  /** Activations and their gradients in a training step, as the settings have it, with recomputation, and without. */
  readonly activations: Readonly<Record<'own' | 'recomputed' | 'kept', number>>;
  /** Inputs, masks, tile lists, op parameters and losses of a training step. */
  readonly constants: number;
  /** Held-out losses, gradient norms and checkpoints take at most this beside the training step, whose memory stays. */
  readonly measuring: number;
  /** A batch that acts takes this, of which `caches` are keys and values. */
  readonly acting: number;
  readonly caches: number;
  /**
   * The most that there is at one time, with the activations that the settings have: what the training step keeps, and beside it the
   * larger of measuring and acting, which come one after the other. Acting counts only with `actEvery`: otherwise it comes after training.
   */
  readonly total: number;
}

/** Whether a model has so many parameters that its plan is printed before it is trained. */
export const isLarge = (parameters: readonly ModelParameter[]): boolean => sizeOf(parameters) >= 20e6;

/**
 * The memory that a training run on `device` takes there; nothing is allocated.
 *
 * @throws InputError if a parameter or the batch is larger than the bindings of the device
 */
export async function memoryPlan(
  device: Device,
  configuration: ModelConfiguration,
  settings: RunSettings,
): Promise<MemoryPlan> {
  expectBatch(configuration, settings.batch, device);
  using planning = planningDevice(device);
  useVariants(planning, chosenVariants(device));
  const { memory } = planning;
  const { bytes: begun } = memory;
  let before = begun;
  const grown = (bytes = memory.bytes) => {
    const growth = bytes - before;
    before = memory.bytes;
    return growth;
  };
  const batch = randomBatch(configuration, settings.batch, 0);
  using model = new Model(planning, configuration);
  const weights = grown();
  const maker = { make: async () => batch };
  using trainer = new Trainer(model, maker, { batch: (_, size) => Array<null>(size).fill(null) }, settings);
  const { optimizer } = trainer;
  const average = optimizer.average?.bytes ?? 0;
  const moments = grown() - average;
  planning.step(() => model.parameters.zeroGradients());
  const gradients = grown();
  await trainer.prepareStep(0);
  const own = activationsOf(trainer);
  const constants = grown() - own;
  memory.peakBytes = memory.bytes;
  await (await trainer.step(0)).outcome;
  await trainer.measure([null], null);
  await trainer.gradientNorms(0);
  for (const { pieces } of model.parameters)
    for (const { byteLength } of pieces) memory.giveStaging(memory.takeStaging(byteLength));
  const measured = memory.peakBytes;
  const measuring = grown(measured);
  memory.peakBytes = memory.bytes;
  const caches = await cacheBytes(model, batch);
  const acted = memory.peakBytes;
  const acting = grown(acted);
  using other = new TrainingStep(model, optimizer, { ...settings, recompute: !settings.recompute });
  other.capture(trainingInputs(model.architecture, batch));
  const others = activationsOf(other);
  const [recomputed, kept] = settings.recompute ? [own, others] : [others, own];
  return {
    ...{ weights, gradients, moments, average, constants, measuring, acting, caches },
    parameters: sizeOf(model.architecture.parameters),
    trained: sizeOf(model.architecture.parameters.filter(({ frozen }) => !frozen)),
    activations: { own, recomputed, kept },
    total: (settings.actEvery === null ? measured : Math.max(measured, acted)) - begun,
  };
}

const sizeOf = (parameters: readonly ModelParameter[]) =>
  parameters.reduce((sum, { shape }) => sum + elementCount(shape), 0);

const activationsOf = (step: Pick<TrainingStep, 'stats'>) => step.stats().memory.activations;

/** The keys and values of a batch that acts: they are gone once it has acted, and what else that takes stays in the pool of the device. */
async function cacheBytes(model: Model, observation: ObservationBatch): Promise<number> {
  const { configuration, device } = model;
  if (!actingObjective(model.objectives)) return 0;
  const noise = new Float32Array(observation.batch * configuration.horizon * configuration.actionDimension);
  let [most, asked] = [0, 0];
  const onLatency = () => {
    most = Math.max(most, device.memory.bytes);
  };
  // Every kind of pass: two tokens of each sample.
  const writer = { allowed: () => (asked++ < 2 * observation.batch ? 'all' : null), write: () => true } as const;
  await act(model, observation, { noise, steps: 1, writer, onLatency });
  return most - device.memory.bytes;
}

/** Bytes as text, all in the unit that suits `whole`. */
export const sizesIn = (whole: number) => (bytes: number) =>
  whole < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
const sizeText = (bytes: number) => sizesIn(bytes)(bytes);

/** The plan in one line. */
export function planText(plan: MemoryPlan, settings: RunSettings): string {
  const words = planRows(plan, settings).map(([name, size]) => `${name} ${size}`);
  return `memory of ${(plan.parameters / 1e6).toFixed(1)} M parameters: ${words.join(', ')}`;
}

/** The plan as rows of a name, its size, and what it is. */
export function planRows(
  plan: MemoryPlan,
  { actEvery }: Pick<RunSettings, 'actEvery'>,
): (readonly [string, string, string])[] {
  const sizeText = sizesIn(plan.total);
  const { own, recomputed, kept } = plan.activations;
  const [count, trained] = [plan.parameters, plan.trained].map((own) => own.toLocaleString('en-US'));
  const acting = actEvery === null ? 'after training, not in the total' : 'in turn with measuring';
  const rows = [
    ['weights', plan.weights, `${count} parameters`],
    ['gradients', plan.gradients, plan.trained < plan.parameters ? `${trained} parameters are trained` : ''],
    ['moments', plan.moments, 'two of AdamW for each trained parameter: --moments'],
    ['average', plan.average, 'moving average of the weights: --ema'],
    ['activations', own, `${sizeText(kept)} without --recompute, ${sizeText(recomputed)} with it`],
    ['constants', plan.constants, 'inputs, tile lists and op parameters of a training step'],
    ['measuring', plan.measuring, 'gradient norms, held-out losses, checkpoints'],
    ['total', plan.total, ''],
    ['acting', plan.acting, `${acting}; ${sizeText(plan.caches)} are keys and values`],
  ] as const;
  return rows.flatMap(([name, bytes, what]) => (bytes > 0 ? [[name, sizeText(bytes), what] as const] : []));
}

/** The memory that there is for a run. */
export interface MemoryGiven {
  readonly bytes: number;
  /** Where that is known from: '--memory', or what is free on this machine. */
  readonly source: string;
}

/**
 * Notes the plan of a large model in one line.
 *
 * @throws InputError if the run takes more than `memory`: with the settings that would fit, if there are any
 */
export async function expectMemory(
  device: Device,
  configuration: ModelConfiguration,
  settings: RunSettings,
  note: (line: string) => void,
  memory?: MemoryGiven,
): Promise<void> {
  const large = isLarge(new Architecture(configuration).parameters);
  if (!large && !memory) return;
  const plan = await memoryPlan(device, configuration, settings);
  if (large) note(planText(plan, settings));
  const complaint = memory && (await memoryComplaint(device, configuration, settings, plan, memory));
  if (complaint) throw new InputError(complaint);
}

/** Why a run does not fit, and the settings with which it would; null if it fits. */
export async function memoryComplaint(
  device: Device,
  configuration: ModelConfiguration,
  settings: RunSettings,
  { total }: MemoryPlan,
  { bytes, source }: MemoryGiven,
): Promise<string | null> {
  if (total <= bytes) return null;
  const what = `this run takes ${sizeText(total)}, more than the ${sizeText(bytes)} of ${source}`;
  const totalOf = async (candidate: Candidate) => {
    const own = { ...settings, ...candidate };
    const lora = candidate.lora ? { experts: Object.keys(configuration.experts), ...loraOf(own)! } : configuration.lora;
    return (await memoryPlan(device, { ...configuration, precision: own.precision, lora }, own)).total;
  };
  const own = candidates(settings);
  // Low-rank adaptation trains other weights, so it is named only where nothing else fits.
  const canAdapt = settings.system !== PACKED_QUESTIONS && settings.lora === null;
  const adapting = canAdapt ? own.map((candidate) => ({ ...candidate, lora: usualRank(configuration) })) : [];
  let least: Candidate | undefined;
  for (const all of [own.slice(1), adapting]) {
    // The plan of a large model takes seconds, and the last candidate, which takes least, tells whether any fits.
    least = all.at(-1) ?? least;
    if (!least || (await totalOf(least)) > bytes) continue;
    for (const candidate of all) {
      const total = await totalOf(candidate);
      if (total <= bytes) return `${what}: ${optionsOf(candidate)} would take ${sizeText(total)}`;
    }
  }
  return `${what}${least ? `; ${optionsOf(least)} would be too much too` : ''}: choose a smaller model`;
}

/** The options that take less memory, each by itself; empty where there is none. */
export function savingOptions(settings: RunSettings): string {
  const kinds = (own: Candidate) => Object.keys(own).filter((name) => name !== 'accumulate');
  const single = candidates(settings).filter((own) => kinds(own).length === 1);
  return [...new Map(single.toReversed().map((own) => [kinds(own)[0], optionsOf(own)])).values()].reverse().join(', ');
}

type Candidate = Partial<Pick<RunSettings, 'batch' | 'accumulate' | 'recompute' | 'moments' | 'precision' | 'lora'>>;

const usualRank = ({ experts, kvHeads, headDimension }: ModelConfiguration): number =>
  Math.min(16, kvHeads * headDimension, ...Object.values(experts).map(({ width, hidden }) => Math.min(width, hidden)));

/** No change, and settings that take less, those first that change least; a smaller batch is made up for by accumulation, which pretraining lacks. */
function candidates({ system, batch, accumulate, recompute, moments, precision }: RunSettings): Candidate[] {
  const trains = system !== PACKED_QUESTIONS;
  const savings: Candidate[] = [{}];
  if (trains && !recompute) savings.push({ recompute: true });
  if (trains && moments !== '8bit') savings.push(...savings.map((own) => ({ ...own, moments: '8bit' as const })));
  if (trains && precision !== 'bf16') savings.push(...savings.map((own) => ({ ...own, precision: 'bf16' as const })));
  const batches: Candidate[] = [{}];
  for (let own = Math.floor(batch / 2); own >= 1; own = Math.floor(own / 2))
    batches.push({ batch: own, ...(trains && { accumulate: Math.ceil((batch * accumulate) / own) }) });
  return batches.flatMap((own) => savings.map((saving) => ({ ...saving, ...own })));
}

const optionsOf = (candidate: Candidate) =>
  Object.entries(candidate)
    .map(([name, value]) => (value === true ? `--${name}` : `--${name} ${value}`))
    .join(' ');
